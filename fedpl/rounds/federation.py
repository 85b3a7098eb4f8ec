"""What stays the same through a run: who takes part, by which method, over which way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fedpl.conditions import ParticipationConfig
from fedpl.executors.protocol import Executor
from fedpl.method import Method
from fedpl.records.messages import Census, Report
from fedpl.rounds.checkpoints import Room


@dataclass(frozen=True)
class Federation:
    """What stays the same through a run.

    Attributes:
        method: What clients minimise, and the server's rule.
        executor: The way to the clients.
        seed: The run's seed.
        participation: Who takes part, and whose task vector counts.
        evaluate_every: Score validation data every so many rounds and after the last; 0: never.
        folder: Where sites in this process keep what their clients remember; None: in memory alone.
        disk: Below which folder the server keeps task vectors and aggregates; None: in memory.
        heard: Called with the round and every client's report as it arrives.
    """

    method: Method
    executor: Executor
    seed: int = 0
    participation: ParticipationConfig = ParticipationConfig()
    evaluate_every: int = 1
    folder: Path | None = None
    disk: Path | None = None
    heard: Callable[[int, Report], None] = field(default=lambda round, report: None)

    @cached_property
    def census(self) -> Census:
        """The clients; a client's place is its row in every matrix."""
        return self.executor.join()

    @cached_property
    def room(self) -> Room | None:
        """Where the server keeps task vectors and aggregates on disk; None: in memory.

        Raises:
            UserError: If the disk has no room for them.
        """
        if self.disk is None:
            return None
        return Room.below(self.disk, len(self.clients), self.census.layout.size)

    @property
    def clients(self) -> tuple[str, ...]:
        """Client ids by row."""
        return self.census.clients

    def splits_due(self, round: int, rounds: int) -> tuple[str, ...]:
        """Splits to score in a round: validation when its turn has come, the test only at the end."""
        last = round == rounds
        every = self.evaluate_every
        validation = every > 0 and (last or round % every == 0)
        return ("validation",) * validation + ("test",) * last
