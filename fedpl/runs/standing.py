"""A method of a run, from wherever it stands to its last round."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from fedpl.errors import UserError
from fedpl.interop import on_host
from fedpl.records.results import MethodResult
from fedpl.rounds.checkpoints import Checkpoint
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult, run_rounds
from fedpl.runs.beginning import Beginning
from fedpl.runs.folder import MethodFolder
from fedpl.runs.summary import method_result


class Clock:
    """Seconds that a run has taken, over all the processes that worked on it."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._before = 0.0

    def __call__(self) -> float:
        return self._before + time.perf_counter() - self._begin

    def count(self, before: float) -> None:
        """Add what had been taken before this process began."""
        self._before = max(self._before, before)


@dataclass(frozen=True)
class Standing:
    """A method and where it stands.

    Attributes:
        federation: Clients, server rule, executor.
        rounds: Number of rounds in all.
        folder: Where the method is kept.
        clock: Seconds the run has taken.
        recorded: Digest of what has been recorded of its rounds so far.
        honest: The clients that do not attack, where some do: they are also counted by themselves.
        keeps_vectors: Whether a client may be away from a round, so that what it last sent has to be kept.
        beginning: Reads the models that the run's clients begin with; None of them: θ₀ for all.
    """

    federation: Federation
    rounds: int
    folder: MethodFolder
    clock: Clock
    recorded: Callable[[], str] = str
    honest: frozenset[str] | None = None
    keeps_vectors: bool = False
    beginning: Callable[[], Beginning | None] = lambda: None

    @cached_property
    def start(self) -> Checkpoint | None:
        """The checkpoint from which the method goes on, until `finish` takes it; None: it starts at θ₀.

        Raises:
            UserError: If it is of more rounds.
        """
        found = self.folder.checkpoints.latest(room=self.federation.room)
        if found is not None and found.state.round == self.rounds and self._result is None:
            found = self.folder.checkpoints.latest(self.rounds - 1, self.federation.room)
        if found is None:
            return self._begun()
        if found.state.round > self.rounds:
            raise UserError(
                f"resume: rounds is {self.rounds}, but {found.state.round} are done; set it higher"
            )
        self.clock.count(found.elapsed)
        return found

    def _begun(self) -> Checkpoint | None:
        """Where the method begins, if that is not θ₀ for all."""
        own, federation = self.beginning(), self.federation
        if own is None:
            return None
        rule, layout = federation.method.aggregator, federation.census.layout
        return own.checkpoint(rule, layout, federation.clients, federation.room)

    @property
    def rounds_done(self) -> int:
        """Rounds whose outcome is on disk."""
        return 0 if self.start is None else self.start.state.round

    def finish(self, heard: Callable[[RoundResult], None]) -> MethodResult:
        """Do the rounds that are left. Each is on disk before the next one starts.

        Args:
            heard: Takes a round before its state is written: a record without a state is cut off when the run
                is resumed, a state without a record could not be mended.

        Returns:
            What the summary says about the method.
        """
        rounds = run_rounds(self.federation, self.rounds, self._take_start(), self.folder.journal)
        for result in rounds:
            heard(result)
            if result.round == self.rounds:
                census, sends = self.federation.census, self.federation.method.exchanges
                last = method_result(census.clients, result, census.metrics, self.honest, sends)
                self.folder.write_result(last)
            self.folder.checkpoints.save(self._checkpoint(result))
            del result  # nor its aggregates held while the next round makes others
        # Also where an earlier process was killed right before it.
        self.folder.checkpoints.prune()
        self.folder.journal.close()
        found = self._result
        if found is None:
            raise UserError(f"resume: {self.folder.path} lost what it held about round {self.rounds}")
        return found

    def _take_start(self) -> Checkpoint | None:
        """The start, no longer held here: it is as large as what the rounds replace it with."""
        start = self.start
        del self.__dict__["start"]
        return start

    @property
    def _result(self) -> MethodResult | None:
        return self.folder.result(self.rounds)

    def _checkpoint(self, result: RoundResult) -> Checkpoint:
        last_sent = None
        if self.keeps_vectors and self.federation.method.aggregator.uses_stale:
            room = self.federation.room
            last_sent = on_host(result.vectors) if room is None else room.vectors
        return Checkpoint(
            state=result.state,
            ledger=result.ledger,
            last_sent=last_sent,
            memories=result.memories,
            capacity=self.federation.executor.plan(()).capacity,
            records=self.recorded(),
            elapsed=self.clock(),
        )
