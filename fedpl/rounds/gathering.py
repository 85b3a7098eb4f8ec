"""Step 1 of a round: the drawn clients train, and what they deliver is kept as it comes."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.errors import UserError
from fedpl.rounds.executor import ClientUpdate, Executor, Job
from fedpl.rounds.journal import ClientStates, Delivery, Journal, Plan

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gathering:
    """How the answers of a round are gathered.

    Attributes:
        executor: Who trains.
        isolate: Whether a client whose training fails is left out; else its error ends the run.
        timeout: Seconds after which no more clients begin; None waits for all.
        clock: Seconds since some moment.
        seal: Called with a client's id and task vector before the vector leaves the client.
        heard: Called with every report as it arrives.
        journal: Where they are kept until the round is closed; None keeps nothing.
    """

    executor: Executor
    isolate: bool = False
    timeout: float | None = None
    clock: Callable[[], float] = time.monotonic
    seal: Callable[[str, Float[Tensor, "params"]], None] = field(default=lambda client, vector: None)
    heard: Callable[[ClientUpdate], None] = field(default=lambda update: None)
    journal: Journal | None = None

    def __call__(
        self, jobs: Sequence[Job], matrix: Float[Tensor, "clients params"]
    ) -> tuple[list[ClientUpdate], dict[str, str]]:
        """Fill a row of the matrix for each job.

        Args:
            jobs: The clients' work in one round.
            matrix: Task vectors.

        Returns:
            The reports, and why clients delivered nothing, by client.
        """
        if not jobs:
            return [], {}
        by_client = {job.client: job for job in jobs}
        groups = [[job.client for job in group] for group in self.executor.groups(jobs)]
        plan = Plan(groups, self.executor.capacity())
        if self.journal is not None:
            plan = self.journal.open(jobs[0].round, plan)
            self.executor.set_capacity(plan.capacity)
        updates: list[ClientUpdate] = []
        errors: dict[str, str] = {}
        begin = self.clock()
        for number, members in enumerate(plan.groups):
            delivery = self._recall(number, matrix)
            if delivery is None:
                group = [by_client[client] for client in members]
                closed = self.timeout is not None and self.clock() - begin > self.timeout
                delivery = self._too_late(group) if closed else self._train(group, matrix)
                if self.journal is not None:
                    self.journal.write(number, delivery, matrix)
            for update in delivery.updates:
                self.heard(update)
            updates += delivery.updates
            errors |= delivery.errors
        return updates, errors

    def _too_late(self, jobs: Sequence[Job]) -> Delivery:
        """Nothing of clients who had not begun when the round closed; a resume repeats that."""
        reason = f"had not begun when the round closed after {self.timeout:g} s"
        return Delivery((), {job.client: reason for job in jobs}, self._states(jobs))

    def _recall(self, group: int, matrix: Float[Tensor, "clients params"]) -> Delivery | None:
        known = self.journal.read(group, matrix.shape[1]) if self.journal is not None else None
        if known is None:
            return None
        delivery, rows = known
        for update, row in zip(delivery.updates, rows, strict=True):
            matrix[update.row] = torch.from_numpy(row).to(matrix.device)
        for client, state in delivery.states.items():
            self.executor.load_client_state(client, state)
        return delivery

    def _train(self, jobs: Sequence[Job], matrix: Float[Tensor, "clients params"]) -> Delivery:
        """Train clients together; if that fails, one by one, to find out whose fault it is."""
        before = self._states(jobs) if self.isolate else {}
        try:
            updates = tuple(self._sealed(update, matrix) for update in self.executor.train(jobs, matrix))
            return Delivery(updates, {}, self._states(jobs))
        except UserError:
            raise
        except Exception as error:
            names = ", ".join(f"'{job.client}'" for job in jobs)
            if not self.isolate:
                error.add_note(f"in round {jobs[0].round}, while training {names}")
                raise
            what = f"{type(error).__name__}: {error}"
            _log.warning("round %d: training %s failed", jobs[0].round, names, exc_info=error)
        for job in jobs:
            self.executor.load_client_state(job.client, before[job.client])
        if len(jobs) == 1:
            return Delivery((), {jobs[0].client: f"its training failed: {' '.join(what.split())}"}, before)
        parts = [self._train([job], matrix) for job in jobs]
        return Delivery(
            tuple(update for part in parts for update in part.updates),
            {client: reason for part in parts for client, reason in part.errors.items()},
            {client: state for part in parts for client, state in part.states.items()},
        )

    def _sealed(self, update: ClientUpdate, matrix: Float[Tensor, "clients params"]) -> ClientUpdate:
        self.seal(update.client, matrix[update.row])
        return update

    def _states(self, jobs: Sequence[Job]) -> ClientStates:
        return {
            job.client: {
                name: value.clone() for name, value in self.executor.client_state(job.client).items()
            }
            for job in jobs
        }
