"""Whose task vector can be used."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fedpl.conditions import FaultsConfig, ParticipationConfig
from fedpl.errors import UserError
from fedpl.records.messages import Report, Work
from fedpl.rounds import loop
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import run_rounds
from fedpl.rounds.vetting import alike, vet
from fedpl.server import Aggregator, Uniform
from tests.waits import waits

CLIENTS = ("a", "b", "c", "d")


def reports(scale: float = 1.0) -> list[Report]:
    """Four answers with vectors of length 2, the last one `scale` times as long."""
    rows = torch.ones(4, 4)
    rows[3] *= scale
    return [Report(client, row, 5, 1, 0.5, {}) for client, row in zip(CLIENTS, rows, strict=True)]


def test_good_answers_are_used() -> None:
    assert vet(reports(), 100.0) == {}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite(bad: float) -> None:
    found = reports()
    found[1].vector[2] = bad
    assert vet(found, 100.0) == {"b": "its task vector is not finite"}


def test_absurd_lengths_relative_to_the_median() -> None:
    assert vet(reports(9.9), 10.0) == {}
    assert "has length 22, the limit is 20" in vet(reports(11.0), 10.0)["d"]
    assert vet(reports(1e30), None) == {}
    assert list(vet(reports(1e30), 10.0)) == ["d"], "its float32 norm would overflow"


def test_without_any_movement_there_is_no_limit() -> None:
    found = [report._replace(vector=torch.zeros(4)) for report in reports()[:3]]
    assert vet([*found, reports()[3]], 10.0) == {}


@pytest.mark.parametrize(
    ("lengths", "bad"),
    [
        ([1.0, 1e6], {"b"}),  # the median of two is their mean, which grew with the attacker
        ([1.0, 2.0, 1e6, 1e6], {"c", "d"}),
        ([0.0, 0.0, 0.0, 1.0, 1e6], {"e"}),  # those who did not move say nothing of a length
        ([0.0, 1.0], set()),
        ([1e6], set()),
        ([3.0, 4.0], set()),
    ],
)
def test_the_limit_holds_with_two_clients_half_attackers_and_zeros(
    lengths: list[float], bad: set[str]
) -> None:
    template = reports()[0]
    found = [
        template._replace(client=client, vector=torch.tensor([length, 0.0, 0.0, 0.0]))
        for client, length in zip("abcde", lengths, strict=False)
    ]
    assert set(vet(found, 100.0)) == bad


def sent(*rows: list[float]) -> list[Report]:
    template = reports()[0]
    return [
        template._replace(client=c, vector=torch.tensor(row)) for c, row in zip("abcde", rows, strict=False)
    ]


def test_copies_are_named_each_with_another() -> None:
    one, two = [3.0, 4.0, 0.0], [0.0, 3.0, 4.0]
    assert alike(sent(one, two, one)) == {
        "a": "sent the same task vector as 'c'",
        "c": "sent the same task vector as 'a'",
    }
    nearly = [3.0, 4.0, 0.001]  # cosine 1 − 2e-8
    assert set(alike(sent(one, two, nearly))) == {"a", "c"}
    assert alike(sent(one, two, [3.0, 4.0, 0.1])) == {}, "cosine 1 − 2e-4: alike, not the same"
    assert alike(sent(one, [6.0, 8.0, 0.0], [0.0] * 3, [0.0] * 3)) == {}, "of another length; without any"
    assert set(alike(sent(one, one, one))) == {"a", "b", "c"}


def test_the_device_is_not_waited_for_client_by_client() -> None:
    def of(clients: int, copies: int = 0) -> list[Report]:
        rows = torch.nn.functional.normalize(torch.randn(clients, 50), dim=1)  # of one length: one group
        rows[:copies] = rows[0]
        return [Report(f"c{i:03d}", row, 5, 1, 0.5, {}) for i, row in enumerate(rows)]

    assert waits(lambda: vet(of(100), 10.0)) == waits(lambda: vet(of(4), 10.0))
    assert waits(lambda: alike(of(100))) == waits(lambda: alike(of(4)))
    many = of(60, 40)  # 780 pairs of copies
    assert set(alike(many)) == {report.client for report in many[:40]}
    assert waits(lambda: alike(many)) <= 30


def test_copies_and_cut_lengths_are_noticed_and_recorded(toy: Callable[..., Federation]) -> None:
    faults = FaultsConfig(hostile=0.3, attack="mimic", strength=1.0)
    result = next(run_rounds(toy(faults=faults), 1))
    assert len(result.noticed) == 3, "two copies and the one whom they copy"
    assert all(reason.startswith("sent the same") for reason in result.noticed.values())
    faults = FaultsConfig(hostile=0.3, attack="scale", strength=50.0)
    run = toy(faults=faults)
    result = next(run_rounds(run, 1))
    assert set(result.noticed) == set(run.executor.faults.hostile)
    assert all("was cut to 0." in reason for reason in result.noticed.values())
    assert not result.rejected
    assert next(run_rounds(toy(), 1)).noticed == {}


def test_late_and_empty_answers() -> None:
    late, *others, empty = reports()
    found = vet([late._replace(late=True), *others, empty._replace(examples=0)], None)
    assert found == {"a": "answered late", "d": "claims 0 training examples"}


def spoil(client: str, change: Callable[[torch.Tensor], object], round: int = 2):  # type: ignore[no-untyped-def]
    def sabotage(job: Work, row: torch.Tensor) -> None:
        if (job.client, job.round) == (client, round):
            change(row)

    return sabotage


RULES = [Aggregator(), Aggregator(weighting=Uniform()), Aggregator(granularity="block")]
BAD = {
    "nan": (lambda row: row.fill_(math.nan), "its task vector is not finite"),
    "one infinity": (lambda row: row[:1].fill_(math.inf), "its task vector is not finite"),
    "huge": (lambda row: row.mul_(1e6), "its task vector has length"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize(
    "rule", [Aggregator(), Aggregator(weighting=Uniform()), Aggregator(granularity="block")]
)
def test_a_bad_vector_moves_nobody_and_the_round_goes_on(
    kind: str, rule: Aggregator, toy: Callable[..., Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are where they would be had the client been away; it stays where it would then, bit for bit.

    A row of zeros is a summand more, and a matrix product adds in an order of its own for each shape.
    """
    change, reason = BAD[kind]
    spoilt, away = (toy(size=1, aggregator=rule) for _ in range(2))
    spoilt.executor.sabotage = spoil("cleo", change)
    rounds = run_rounds(spoilt, 2)
    before = np.array(next(rounds).state.personal)  # which the next one overwrites
    second = next(rounds)
    assert reason in second.rejected["cleo"]
    assert [u.client for u in second.reports] == [c for c in spoilt.clients if c != "cleo"]
    assert second.ledger.age.tolist() == [0, 0, -1, 0, 0, 0, 0]
    assert np.isfinite(np.asarray(second.state.personal)).all()
    cohorts = [tuple(range(7)), (0, 1, 3, 4, 5, 6)]
    monkeypatch.setattr(loop, "draw", lambda *_: cohorts.pop(0))
    _, other = run_rounds(away, 2)
    found, expected = (np.asarray(result.state.personal) for result in (second, other))
    assert np.array_equal(found[2], before[2]) == np.array_equal(expected[2], before[2])
    n, params = found.shape
    longest = n * np.abs(expected - before).max() + np.abs(before).max()
    rounding = 4 * (n + params) * np.finfo(np.float32).eps * longest  # of products, of cosines and of the mix
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding)


def test_too_few_usable_vectors_stop_the_run(toy: Callable[..., Federation]) -> None:
    federation = toy(participation=ParticipationConfig(min_clients=7))
    federation.executor.sabotage = spoil("cleo", lambda row: row.fill_(math.nan))
    rounds = run_rounds(federation, 3)
    next(rounds)
    with pytest.raises(UserError, match=r"round 2: 6 task vectors can be used.*asks for 7.*'cleo' its task"):
        next(rounds)


def test_a_client_that_crashes_alone_is_found_and_left_out(
    toy: Callable[..., Federation], caplog: pytest.LogCaptureFixture
) -> None:
    def crash(row: torch.Tensor) -> None:
        raise RuntimeError("bad\nlabel")

    federation = toy(participation=ParticipationConfig(on_client_error="skip"))
    federation.executor.sabotage = spoil("cleo", crash)
    _, second, third = run_rounds(federation, 3)
    assert second.rejected == {"cleo": "its training failed: RuntimeError: bad label"}
    assert third.rejected == {}
    assert len(second.reports) == 6
    assert "training 'cleo' failed" in caplog.text
    assert "Traceback" in caplog.text
    # cleo and dan trained together: dan's failed attempt left no trace in what he remembers.
    memory = federation.executor.memory
    counts = {c: int(memory.recall(c, digest)["count"]) for c, digest in third.memories.items()}
    assert counts == {client: 2 if client == "cleo" else 3 for client in federation.clients}


def test_a_crash_ends_the_run_unless_told_otherwise(toy: Callable[..., Federation]) -> None:
    def crash(row: torch.Tensor) -> None:
        raise RuntimeError("bad label")

    federation = toy()
    federation.executor.sabotage = spoil("cleo", crash)
    with pytest.raises(RuntimeError, match="bad label") as raised:
        list(run_rounds(federation, 3))
    assert raised.value.__notes__ == ["in round 2, while training 'cleo', 'dan'"]


def test_lost_and_late_clients_keep_what_they_have(
    toy: Callable[..., Federation], caplog: pytest.LogCaptureFixture
) -> None:
    federation = toy(faults=FaultsConfig(lost=0.3, late=0.3), seed=3)
    rows = {client: row for row, client in enumerate(federation.clients)}
    before = np.tile(federation.census.initial.numpy(), (7, 1))
    seen: set[str] = set()
    for result in run_rounds(federation, 6):
        after = np.array(result.state.personal)
        for client, reason in result.rejected.items():
            seen.add(reason)
            assert f"round {result.round}: '{client}' is left out: {reason}" in caplog.messages
            assert np.array_equal(after[rows[client]], before[rows[client]])
        for done in result.reports:
            assert not np.array_equal(after[rows[done.client]], before[rows[done.client]])
        lost = sum(reason == "never answered" for reason in result.rejected.values())
        assert (result.drawn, len(result.reports)) == (7, 7 - len(result.rejected))
        assert result.bytes_down == 7 * federation.census.layout.size * 4
        assert result.bytes_up == (7 - lost) * federation.census.layout.size * 4
        before = after
    assert seen == {"never answered", "answered late"}


def test_arrays_are_vetted_as_tensors_are() -> None:
    rows = torch.randn(40, 500, generator=torch.Generator().manual_seed(0))
    rows[1], rows[2], rows[3] = rows[0], -rows[0], rows[0] + 1e-7
    rows[4] *= 30
    strange = rows[:6].clone()
    strange[4, 0], strange[5, 1], strange[3] = torch.nan, torch.inf, 3e38

    def of(some: Sequence[Any]) -> list[Report]:
        return [Report(f"c{i}", row, 5, 1, 0.5, {}) for i, row in enumerate(some)]

    for vectors in (rows, strange):
        assert vet(of(list(vectors.numpy())), 10.0) == vet(of(list(vectors)), 10.0) != {}
    for size in (2**20, 2**12):
        assert alike(of(list(rows.numpy())), size=size) == alike(of(list(rows))) != {}
