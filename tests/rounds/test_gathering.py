"""A round that does not wait for everybody."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from fedpl.conditions import ParticipationConfig
from fedpl.errors import UserError
from fedpl.executors.protocol import GoOn
from fedpl.objectives import Plain
from fedpl.records.messages import Answer, Company, Work
from fedpl.rounds.federation import Federation
from fedpl.rounds.gathering import Gathering
from fedpl.rounds.journal import Journal
from fedpl.rounds.loop import run_rounds
from tests.rounds.conftest import CLIENTS, LAYOUT, ToyExecutor


class Clock(ToyExecutor):
    """Two clients at a time, a second for both, on a clock of its own."""

    now = 0.0

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, torch.Tensor] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        for members in company.groups:
            if go_on is not None and not go_on():
                break
            self.now += 1.0
            yield from super().train(work, Company((members,), company.capacity), into)


def gather(executor: Clock, timeout: float | None, journal: Journal | None = None) -> tuple[list, dict]:
    work = [Work(client, 1, torch.zeros(LAYOUT.size), (), Plain()) for client in CLIENTS]
    gathering = Gathering(executor, timeout=timeout, clock=lambda: executor.now, journal=journal)
    rows = dict(zip(CLIENTS, torch.zeros(len(CLIENTS), LAYOUT.size), strict=True))
    reports, errors = gathering(work, rows)
    return [report.client for report in reports], errors


def test_a_round_closes_and_those_who_began_finish(tmp_path: Path) -> None:
    assert gather(Clock(), None) == (list(CLIENTS), {})
    journal = Journal(tmp_path)
    answered, errors = gather(Clock(), 1.5, journal)
    assert answered == list(CLIENTS[:4])
    assert list(errors) == list(CLIENTS[4:])
    assert all("closed after 1.5 s" in reason for reason in errors.values())
    # A run that is gone on with keeps to what was decided, however fast it is now.
    again = Clock()
    assert gather(again, 1.5, journal) == (answered, errors)
    assert not again.trained


def test_a_round_that_waits_for_nobody_ends_the_run(toy: Callable[..., Federation]) -> None:
    run = toy(participation=ParticipationConfig(timeout=0.0, min_clients=2))
    with pytest.raises(UserError, match=r"had not begun when the round closed"):
        next(run_rounds(run, 1))
    assert len(ParticipationConfig(timeout=-1.0).problems()) == 1


def answers(
    executor: ToyExecutor, *clients: str
) -> tuple[dict[str, torch.Tensor], dict[str, str], list[str]]:
    """Rows, errors and who is used after a round of these clients."""
    work = [Work(client, 1, torch.zeros(LAYOUT.size), (), Plain()) for client in clients]
    rows = dict(zip(clients, torch.zeros(len(clients), LAYOUT.size), strict=True))
    reports, errors = Gathering(executor)(work, rows)
    return rows, errors, [report.client for report in reports]


def test_an_answer_nobody_asked_for_is_named_and_goes_nowhere() -> None:
    executor = ToyExecutor()
    stray = torch.full((LAYOUT.size,), 1e6)
    executor.answers = lambda report: [report, report._replace(client="zoe", vector=stray)]
    rows, errors, used = answers(executor, "ada", "bob")
    assert errors == {"zoe": "was not asked"}
    assert used == ["ada", "bob"]
    assert max(float(row.abs().max()) for row in rows.values()) < 10


def test_who_answers_twice_is_not_used() -> None:
    executor = ToyExecutor(size=1)
    executor.answers = lambda report: [report] * (2 if report.client == "bob" else 1)
    _, errors, used = answers(executor, "ada", "bob", "cleo")
    assert errors == {"bob": "answered 2 times"}
    assert used == ["ada", "cleo"]


def test_another_shape_is_named() -> None:
    executor = ToyExecutor()
    executor.answers = lambda report: [report._replace(vector=report.vector[:-1].clone())]
    _, errors, used = answers(executor, "ada")
    assert "sent torch.float32 (46,), expected torch.float32 (47,)" in errors["ada"]
    assert not used


def test_who_says_nothing_is_named() -> None:
    executor = ToyExecutor()
    executor.answers = lambda report: [] if report.client == "bob" else [report]
    _, errors, used = answers(executor, "ada", "bob", "cleo")
    assert errors == {"bob": "never answered"}
    assert used == ["ada", "cleo"]


def test_answers_to_earlier_attempts_are_dropped(caplog: pytest.LogCaptureFixture) -> None:
    executor = ToyExecutor()
    executor.answers = lambda report: [report._replace(attempt=0)]
    _, errors, _ = answers(executor, "ada")
    assert errors == {"ada": "never answered"}
    assert "earlier attempt" in caplog.text


def test_what_comes_over_a_wire_is_put_into_its_row() -> None:
    executor, wire = ToyExecutor(), ToyExecutor()
    wire.answers = lambda report: [report._replace(vector=report.vector.clone().mul(2))]
    lent, _, _ = answers(executor, "ada", "bob")
    copied, _, _ = answers(wire, "ada", "bob")
    assert all(torch.equal(copied[client], 2 * lent[client]) for client in lent)
