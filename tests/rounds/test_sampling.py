"""Who is drawn, who fails and who attacks, as functions of seed and round."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpl.conditions import FaultsConfig, ParticipationConfig
from fedpl.rounds.sampling import draw, hostile_rows, share_of

NAMES = tuple(f"client-{i}" for i in range(20))
NO_FAULTS = FaultsConfig()
HALF = ParticipationConfig(fraction=0.5)


def test_everybody_by_default() -> None:
    cohort = draw(NAMES, ParticipationConfig(), NO_FAULTS, 0, 1)
    assert cohort == (tuple(range(20)), frozenset(), frozenset())


@given(st.floats(0.01, 1), st.integers(1, 30), st.integers(1, 25), st.integers(0, 5))
def test_a_cohort_has_its_size_and_no_client_twice(fraction: float, least: int, n: int, seed: int) -> None:
    settings = ParticipationConfig(fraction=fraction, min_clients=least)
    drawn = draw(NAMES[:n], settings, NO_FAULTS, seed, 3).drawn
    assert list(drawn) == sorted(set(drawn))
    assert len(drawn) == share_of(NAMES[:n], settings) <= len(NAMES[:n])
    assert len(drawn) >= min(least, len(NAMES[:n]))


def test_rounds_and_seeds_draw_differently_and_repeatably() -> None:
    cohorts = [draw(NAMES, HALF, NO_FAULTS, seed, round) for seed in (0, 1) for round in range(1, 6)]
    assert len({cohort.drawn for cohort in cohorts}) == 10
    assert cohorts == [draw(NAMES, HALF, NO_FAULTS, seed, round) for seed in (0, 1) for round in range(1, 6)]


def test_the_order_of_the_clients_has_no_influence() -> None:
    backwards = NAMES[::-1]
    for round in range(1, 5):
        forward = {NAMES[row] for row in draw(NAMES, HALF, NO_FAULTS, 0, round).drawn}
        assert {backwards[row] for row in draw(backwards, HALF, NO_FAULTS, 0, round).drawn} == forward


def test_everybody_has_the_same_chance() -> None:
    rounds = 2000
    counts = Counter(row for round in range(rounds) for row in draw(NAMES, HALF, NO_FAULTS, 0, round).drawn)
    # Standard deviation 22: five of them.
    assert all(abs(counts[row] - rounds / 2) < 5 * (rounds / 4) ** 0.5 for row in range(20))


def test_lost_and_late_clients_are_drawn_ones_and_as_frequent_as_asked() -> None:
    faults = FaultsConfig(lost=0.2, late=0.1)
    cohorts = [draw(NAMES, HALF, faults, 0, round) for round in range(2000)]
    for cohort in cohorts:
        assert cohort.lost | cohort.late <= set(cohort.drawn)
        assert not cohort.lost & cohort.late
    assert sum(len(cohort.lost) for cohort in cohorts) / 20_000 == pytest.approx(0.2, abs=0.015)
    assert sum(len(cohort.late) for cohort in cohorts) / 20_000 == pytest.approx(0.08, abs=0.01)


def test_attackers_are_a_fixed_share() -> None:
    hostile = hostile_rows(NAMES, FaultsConfig(hostile=0.3), 0)
    assert len(hostile) == 6
    assert hostile != hostile_rows(NAMES, FaultsConfig(hostile=0.3), 1)
    assert not hostile_rows(NAMES, NO_FAULTS, 0)
