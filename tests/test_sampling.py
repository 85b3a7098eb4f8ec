"""Who is drawn, who fails and who attacks, as functions of seed and round."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpl.conditions import FaultsConfig, ParticipationConfig
from fedpl.sampling import draw, hostile_clients, share_of
from fedpl.site.faults import Faults

NAMES = tuple(f"client-{i}" for i in range(20))
NO_FAULTS = FaultsConfig()
HALF = ParticipationConfig(fraction=0.5)


def test_everybody_by_default() -> None:
    assert draw(NAMES, ParticipationConfig(), 0, 1) == tuple(range(20))


@given(st.floats(0.01, 1), st.integers(1, 30), st.integers(1, 25), st.integers(0, 5))
def test_a_cohort_has_its_size_and_no_client_twice(fraction: float, least: int, n: int, seed: int) -> None:
    settings = ParticipationConfig(fraction=fraction, min_clients=least)
    drawn = draw(NAMES[:n], settings, seed, 3)
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == share_of(NAMES[:n], settings) <= len(NAMES[:n])
    assert len(drawn) >= min(least, len(NAMES[:n]))


def test_rounds_and_seeds_draw_differently_and_repeatably() -> None:
    cohorts = [draw(NAMES, HALF, seed, round) for seed in (0, 1) for round in range(1, 6)]
    assert len(set(cohorts)) == 10
    assert cohorts == [draw(NAMES, HALF, seed, round) for seed in (0, 1) for round in range(1, 6)]


def test_the_order_of_the_clients_has_no_influence() -> None:
    backwards = NAMES[::-1]
    for round in range(1, 5):
        forward = {NAMES[row] for row in draw(NAMES, HALF, 0, round)}
        assert {backwards[row] for row in draw(backwards, HALF, 0, round)} == forward


def test_everybody_has_the_same_chance() -> None:
    rounds = 2000
    counts = Counter(row for round in range(rounds) for row in draw(NAMES, HALF, 0, round))
    # Standard deviation 22: five of them.
    assert all(abs(counts[row] - rounds / 2) < 5 * (rounds / 4) ** 0.5 for row in range(20))


def test_lost_and_late_clients_are_as_frequent_as_asked() -> None:
    faults = Faults(NAMES, FaultsConfig(lost=0.2, late=0.1), 0)
    pairs = [(name, round) for round in range(1000) for name in NAMES]
    assert sum(faults.lost(*pair) for pair in pairs) / 20_000 == pytest.approx(0.2, abs=0.015)
    assert sum(faults.late(*pair) for pair in pairs) / 20_000 == pytest.approx(0.1, abs=0.01)
    both = sum(faults.lost(*pair) and faults.late(*pair) for pair in pairs)
    assert both / 20_000 == pytest.approx(0.02, abs=0.005), "one has nothing to do with the other"


def test_attackers_are_a_fixed_share() -> None:
    hostile = hostile_clients(NAMES, FaultsConfig(hostile=0.3), 0)
    assert len(hostile) == 6
    assert hostile != hostile_clients(NAMES, FaultsConfig(hostile=0.3), 1)
    assert not hostile_clients(NAMES, NO_FAULTS, 0)
