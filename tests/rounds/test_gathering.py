"""A round that does not wait for everybody."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch

from fedpl.conditions import ParticipationConfig
from fedpl.errors import UserError
from fedpl.rounds.executor import ClientUpdate, Job
from fedpl.rounds.gathering import Gathering
from fedpl.rounds.journal import Journal
from fedpl.rounds.loop import Federation, run_rounds
from tests.rounds.conftest import CLIENTS, LAYOUT, ToyExecutor


class Clock(ToyExecutor):
    """Two clients at a time, a second for both, on a clock of its own."""

    now = 0.0

    def train(self, jobs: Iterable[Job], out: torch.Tensor) -> Iterator[ClientUpdate]:
        self.now += 1.0
        return super().train(jobs, out)


def gather(executor: Clock, timeout: float | None, journal: Journal | None = None) -> tuple[list, dict]:
    jobs = [Job(client, row, 1, torch.zeros(LAYOUT.size), ()) for row, client in enumerate(CLIENTS)]
    gathering = Gathering(executor, timeout=timeout, clock=lambda: executor.now, journal=journal)
    updates, errors = gathering(jobs, torch.zeros(len(CLIENTS), LAYOUT.size))
    return [update.client for update in updates], errors


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
