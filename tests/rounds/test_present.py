"""Rounds among those who take part: as if all were looked at, in memory and on disk, cut off anywhere."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.records.layout import AdapterLayout
from fedpl.rounds.checkpoints import Checkpoint, Checkpoints
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult, run_rounds
from fedpl.server import Aggregator, FactorWise, Uniform
from tests import bounds
from tests.rounds.conftest import CLIENTS, LAYOUT
from tests.server.test_contract import METHODS, rule_of

PARTIAL = ParticipationConfig(fraction=0.4)
RULES = {path.stem: rule_of(path) for path in METHODS}
APART = {name: rule for name, rule in RULES.items() if rule.only_present(LAYOUT)}
# One of each kind: weights of one's own, one model for all, a part into the frozen weights, several models.
KINDS = ("fedbip", "fedavg", "flora", "ifca")
GROUPS = {client: "even" if i % 2 == 0 else "odd" for i, client in enumerate(CLIENTS)}
ROUNDS = 4


class Everyone(Aggregator):
    """The same rule, which looks at the absent too."""

    def only_present(self, layout: AdapterLayout) -> bool:
        return False

    def one_model(self, layout: AdapterLayout) -> bool:
        return False


def of(toy: Callable[..., Federation], rule: Aggregator, **given: object) -> Federation:
    return toy(aggregator=rule, participation=PARTIAL, groups=GROUPS, **given)


def checkpoint(result: RoundResult, federation: Federation) -> Checkpoint:
    sent = result.vectors.numpy() if federation.method.aggregator.uses_stale else None
    return Checkpoint(result.state, result.ledger, sent, result.memories, {"size": 2}, "", 0.0)


def finish(make: Callable[[], Federation], folder: Path, cut: int | None = None) -> Iterator[np.ndarray]:
    """The aggregates after each round; after some round another process goes on, from what is on disk."""
    federation, store = make(), Checkpoints(folder)
    for result in run_rounds(federation, ROUNDS):
        store.save(checkpoint(result, federation))
        yield np.array(result.state.personal)
        if result.round == cut:
            break
    if cut is not None:
        federation, store = make(), Checkpoints(folder)
        for result in run_rounds(federation, ROUNDS, store.latest(room=federation.room)):
            store.save(checkpoint(result, federation))
            yield np.array(result.state.personal)


def test_most_presets_look_at_those_alone_who_are_there() -> None:
    assert {*KINDS, "fedamp", "krum", "ditto", "fedex", "local"} <= set(APART)
    assert {"clusters", "fedbip_w", "fedper"}.isdisjoint(APART), "what remembers pairs or own heads"
    assert not Aggregator(stale_discount=0.5).only_present(LAYOUT)
    assert not Aggregator(weighting=Uniform(), combine=FactorWise(match_norm=True)).only_present(LAYOUT)


@pytest.mark.parametrize("name", KINDS)
def test_the_absent_change_nothing(name: str, toy: Callable[..., Federation]) -> None:
    rule = APART[name]
    whole = Everyone(**{field: getattr(rule, field) for field in rule.__dataclass_fields__})
    some, every = (run_rounds(of(toy, own), ROUNDS) for own in (rule, whole))
    for found, expected in zip(some, every, strict=True):
        assert found.vectors.shape == (3, LAYOUT.size)
        assert found.similarity.shape[1:] == (3, 3)
        rows = np.ix_(range(len(found.weights)), found.rows, found.rows)
        tau = np.abs(expected.vectors.numpy()).max()
        size = 1 + np.abs(np.asarray(expected.state.personal)).max() + len(CLIENTS) * tau
        allowed = found.round * 40 * bounds.gamma(2 * LAYOUT.size) * size
        bounds.within(np.asarray(found.state.personal), np.asarray(expected.state.personal), allowed)
        bounds.within(found.weights, expected.weights[rows], allowed)


@pytest.mark.parametrize(
    ("name", "storage"), [("fedbip", "memory"), ("ifca", "memory"), ("fedbip", "disk"), ("flora", "disk")]
)
def test_another_process_goes_on_bit_for_bit(
    name: str, storage: str, toy: Callable[..., Federation], tmp_path: Path
) -> None:
    rule = RULES[name]
    found = []
    for cut in (None, 2):
        folder = tmp_path / str(cut)
        folder.mkdir()

        def make(folder: Path = folder) -> Federation:
            federation = of(toy, rule, faults=FaultsConfig(lost=0.2), privacy=PrivacyConfig(clip=1.0))
            disk = folder if storage == "disk" else None
            return replace(federation, folder=folder / "memory", disk=disk, budget=2**10)

        found.append(list(finish(make, folder, cut)))
        named = {path.name for path in folder.glob("aggregates-*")}
        assert named <= {f"aggregates-{round:06d}.npy" for round in range(ROUNDS + 1)}
    whole, gone_on = found
    assert [rows.tobytes() for rows in gone_on] == [rows.tobytes() for rows in whole]


@pytest.mark.parametrize("name", ["fedbip", "flora"])
def test_on_disk_as_in_memory(name: str, toy: Callable[..., Federation], tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    memory = list(finish(lambda: of(toy, APART[name]), tmp_path))
    disk = list(finish(lambda: replace(of(toy, APART[name]), disk=folder, budget=2**10), folder))
    for round, (found, expected) in enumerate(zip(disk, memory, strict=True), start=1):
        size = 1 + np.abs(expected).max()
        bounds.within(found, expected, round * 400 * bounds.gamma(2 * LAYOUT.size) * size)


def test_what_a_round_did_not_change_is_not_written_again(
    toy: Callable[..., Federation], tmp_path: Path
) -> None:
    """An average is one row; of personalised aggregates those of the drawn are new."""
    for rule, rows in ((Aggregator(weighting=Uniform()), 1), (Aggregator(), 3)):
        federation = of(toy, rule)
        store, seen = Checkpoints(tmp_path), {}
        for result in run_rounds(federation, 3):
            store.save(checkpoint(result, federation))
            there = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("aggregates-*.npy")}
            assert all(there[name] == seen[name] for name in there.keys() & seen.keys())
            new = np.load(tmp_path / f"aggregates-{result.round:06d}.npy")
            assert rows <= len(new) <= rows + 2, "and what is left of parts that few have"
            seen = there
        for path in tmp_path.iterdir():
            path.unlink()


def test_a_round_in_which_some_are_lost_is_one_of_fixed_shapes(toy: Callable[..., Federation]) -> None:
    """No program is made anew because somebody does not answer."""
    rounds = run_rounds(of(toy, Aggregator(), faults=FaultsConfig(lost=0.4), seed=1), 5)
    found = [(result.weights.shape, len(result.reports)) for result in rounds]
    assert {shape for shape, _ in found} == {(1, 3, 3)}
    assert len({present for _, present in found}) > 1


def test_the_drawn_alone_are_scored_but_at_the_end(toy: Callable[..., Federation]) -> None:
    """What is learned does not depend on it."""
    plain, drawn = (of(toy, RULES["fedbip"], evaluate_drawn=drawn) for drawn in (False, True))
    for everybody, some in zip(run_rounds(plain, 3), run_rounds(drawn, 3), strict=True):
        assert np.array_equal(everybody.state.personal, some.state.personal)
        found, whole = some.aggregated["validation"], everybody.aggregated["validation"]
        last = some.round == 3
        expected = set(whole) if last else {report.client for report in some.reports} & set(whole)
        assert set(found) == expected
        assert all(found[client] == whole[client] for client in found)
    assert set(some.aggregated["test"]) == set(everybody.aggregated["test"])
