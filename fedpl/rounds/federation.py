"""What stays the same through a run: who takes part, by which method, over which way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fedpl.conditions import ParticipationConfig
from fedpl.executors.protocol import Executor
from fedpl.method import Method
from fedpl.records.messages import Census, Report
from fedpl.rounds.room import Room
from fedpl.sampling import share_of
from fedpl.server.models import Models
from fedpl.server.ondisk import Shards


@dataclass(frozen=True)
class Federation:
    """What stays the same through a run.

    Attributes:
        method: What clients minimise, and the server's rule.
        executor: The way to the clients.
        seed: The run's seed.
        participation: Who takes part, and whose task vector counts.
        evaluate_every: Score validation data every so many rounds and after the last; 0: never.
        evaluate_drawn: Score the clients drawn for a round alone, but for the last round.
        folder: Where sites in this process keep what their clients remember; None: in memory alone.
        disk: In which folder the server keeps task vectors and aggregates; None: in memory.
        budget: Bytes of them that may be in memory at a time where they are on disk.
        shards: Who works on them there; None: this process.
        heard: Called with the round and every client's report as it arrives.
    """

    method: Method
    executor: Executor
    seed: int = 0
    participation: ParticipationConfig = ParticipationConfig()
    evaluate_every: int = 1
    evaluate_drawn: bool = False
    folder: Path | None = None
    disk: Path | None = None
    budget: int = 2**29
    shards: Shards | None = None
    heard: Callable[[int, Report], None] = field(default=lambda round, report: None)

    @cached_property
    def census(self) -> Census:
        """The clients; a client's place is its row in every matrix."""
        return self.executor.join()

    @cached_property
    def room(self) -> Room | None:
        """Where the server keeps task vectors and aggregates on disk; None: in memory."""
        if self.disk is None:
            return None
        return Room(self.disk, self.seats, self.census.layout.size, self.budget, self.shards)

    def settling(self, models: Models) -> Callable[[], None]:
        """What is called for each client whose task vector or aggregate has been touched, see `Room`."""
        return (lambda: None) if self.room is None else self.room.settling(models)

    @cached_property
    def only_present(self) -> bool:
        """Whether a round is worked on as if there were none but the clients drawn for it."""
        return self.method.aggregator.only_present(self.census.layout)

    @property
    def seats(self) -> int:
        """How many clients a round is worked on for: the drawn ones, or all."""
        return share_of(self.clients, self.participation) if self.only_present else len(self.clients)

    @property
    def clients(self) -> tuple[str, ...]:
        """Client ids by row."""
        return self.census.clients

    def scored(self, drawn: Sequence[int], last: bool) -> Sequence[int]:
        """Rows of the clients whose aggregates are scored after a round."""
        return drawn if self.evaluate_drawn and not last else range(len(self.clients))

    def splits_due(self, round: int, rounds: int) -> tuple[str, ...]:
        """Splits to score in a round: validation when its turn has come, the test only at the end."""
        last = round == rounds
        every = self.evaluate_every
        validation = every > 0 and (last or round % every == 0)
        return ("validation",) * validation + ("test",) * last
