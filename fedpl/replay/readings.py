"""Two readings of recorded task vectors under another server rule.

*Chain*: the new rule takes the recorded τ from round 1 on. Only its first round is what a run under the new
rule would have given: from then on clients would have started elsewhere and sent other task vectors.

*One step*: the recorded rule up to round t − 1, the new rule in round t. That one step is exact: clients
were where the run had them. What the new rule remembers of earlier rounds, it gathers from the recorded τ.
"""

from collections import deque
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fedpl.errors import UserError
from fedpl.interop import allocate, borrow, copied, lend
from fedpl.records.scores import Scores
from fedpl.replay.recording import Recording, check_vectors, halves_told, play
from fedpl.rounds.asking import freeze
from fedpl.rounds.checkpoints import Outdated
from fedpl.runs.folder import RunFolder
from fedpl.runs.prepared import Prepared
from fedpl.server import Aggregator
from fedpl.server.state import ServerState, TaskVectors


class Replayer:
    """Aggregates a recording's rounds again.

    Args:
        recording: The rounds.
        prepared: The run's clients and model, for θ₀ and for scoring.

    Attributes:
        metrics: What a score consists of.

    Raises:
        UserError: If the recording's task vectors are not those of such clients.
    """

    def __init__(self, recording: Recording, prepared: Prepared) -> None:
        self.recording = recording
        self.executor = prepared.executor
        self.census = self.executor.join()
        self.metrics = self.census.metrics
        self._clients = self.census.clients
        check_vectors(recording, len(self._clients), self.census.layout.size)
        initial = self.census.initial
        self._matrix = allocate(len(self._clients), self.census.layout.size, initial)
        groups = tuple(member.group for member in self.census.members)
        self._groups = groups if all(groups) else None
        self._beginning = RunFolder(recording.folder).beginning()
        self._examples = jnp.array([member.examples for member in self.census.members])
        self._halves = halves_told(recording, self._clients)

    def chain(self, rule: Aggregator) -> Iterator[ServerState]:
        """The state after each round under a rule; valid until the next is asked for."""
        state = self._start(rule)
        for vectors in self._rounds():
            state = self._step(rule, state, vectors)
            yield state

    def final(self, rule: Aggregator) -> ServerState:
        """The state after the last recorded round under a rule."""
        return deque(self.chain(rule), maxlen=1).pop()

    def one_step(self, rule: Aggregator, round: int) -> ServerState:
        """The state after a round in which the rule took over from the recorded one.

        Args:
            rule: The new rule.
            round: The round, from 1.
        """
        before = self.recording.config.aggregator
        own, memory = self._start(before), self._start(rule)
        for number, vectors in enumerate(self._rounds(), start=1):
            if number == round:
                # Copied: the step is taken in place.
                return self._step(rule, memory._replace(personal=jnp.array(own.personal)), vectors)
            own, memory = self._step(before, own, vectors), self._step(rule, memory, vectors)
        raise ValueError(f"expected a round up to {len(self.recording.rounds)}, got {round}")

    def score(self, state: ServerState, split: str) -> Mapping[str, Scores]:
        """Quality of every client's aggregate on a split of its own data."""
        freeze(self.executor, state)
        return self.executor.score(self._clients, borrow(state.personal, self.census.initial), split)

    def error(self) -> float | None:
        """Largest difference between the recorded rule's chain and the state that the run itself saved.

        None where the run saved none of its last stored round.
        """
        try:
            checkpoint = RunFolder(self.recording.folder).method().checkpoints.latest()
        except Outdated:
            return None
        if checkpoint is None or checkpoint.state.round != len(self.recording.rounds):
            return None
        saved = checkpoint.state
        last = self.final(self.recording.config.aggregator)
        return float(np.abs(np.asarray(last.personal) - np.asarray(saved.personal)).max())

    def _start(self, rule: Aggregator) -> ServerState:
        if rule.weighting.halves and self._halves is None:
            raise UserError(
                f"aggregator.weighting: clients report on halves of their examples, and those of the run in "
                f"{self.recording.folder} were not asked to; take another rule, such as that of fedbip_t"
            )
        reference = copied(self.census.initial)
        state = rule.init(reference, len(self._clients))
        if self._beginning is not None:
            begun = self._beginning.checkpoint(rule, self.census.layout, self._clients, None).state
            state = begun._replace(personal=jnp.array(np.asarray(begun.models)))
        if rule.offer(state) is not None:
            raise UserError(
                "aggregator.receive: clients choose among its models before they train, which no replay can"
            )
        return state

    def _rounds(self) -> Iterator[TaskVectors]:
        """The recorded task vectors, all in the same memory, which the next round overwrites."""
        for place, (mask, age) in enumerate(play(self.recording.rounds, self._matrix)):
            halves = None if self._halves is None else jnp.array(self._halves[place], jnp.float32)
            yield TaskVectors(
                lend(self._matrix), jnp.array(mask), self._examples, jnp.array(age), self._groups, halves
            )

    def _step(self, rule: Aggregator, state: ServerState, vectors: TaskVectors) -> ServerState:
        state, _ = rule.update(state, vectors, self.census.layout)
        # The memory of the vectors is filled again next: nothing may be running on it then.
        return jax.block_until_ready(state)
