"""A newcomer's place at a run's server: its task vectors among the recorded ones, under the run's rule."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fedpl.interop import allocate, borrow, cloned, copied, lend
from fedpl.mapped import read_columns, scratch
from fedpl.onboard.past import Past
from fedpl.records.messages import Census, Halves
from fedpl.replay.recording import halves_told, play
from fedpl.runs.beginning import Beginning
from fedpl.server import Combine, Cosine, FactorWise, ProductSpace, Subject
from fedpl.server.cutting import Share, panels
from fedpl.server.looking import Plan
from fedpl.server.ondisk import PANELS
from fedpl.server.round import Round
from fedpl.server.state import Aggregation, ServerState, TaskVectors


class Seat:
    """Goes through a run's rounds again with one row more, or with a client's row in other hands.

    Args:
        past: The run.
        census: The newcomers.
        client: Whose seat it is; one of the run's ids takes that client's row.
        disk: Below which folder matrices lie; None: in memory.

    Attributes:
        place: Its row.
        state: The server's after the rounds so far.
        row: Where its task vector of the round goes.
    """

    def __init__(self, past: Past, census: Census, client: str, disk: Path | None = None) -> None:
        self.past = past
        self.layout = census.layout
        others, rule = past.clients, past.config.aggregator
        self.place = others.index(client) if client in others else len(others)
        n, initial = max(len(others), self.place + 1), census.initial
        self._examples = np.array([*past.examples, 0][:n], np.int32)
        self._examples[self.place] = next(m.examples for m in census.members if m.client == client)
        if disk is None:
            self._matrix = allocate(n, self.layout.size, initial)
            self.state = rule.init(copied(initial), n)
        else:
            vectors, aggregates = (scratch(disk, (n, self.layout.size)) for _ in range(2))
            self._matrix = borrow(vectors, initial)
            self.state = rule.init(copied(initial, on_disk=True), n, aggregates)
        if past.beginning is not None:
            self.state = self._begun(past.beginning, n)
        self.row = self._matrix[self.place]
        self._aggregation: Aggregation | None = None
        self._halves = halves_told(past.recording, others) if rule.weighting.halves else None
        self._told: list[float] = []

    @property
    def halves(self) -> Halves | None:
        """What it is asked about two halves of its examples."""
        rule = self.past.config.aggregator
        return rule.halves(self.layout) if len(self._told) < rule.weighting.halves else None

    def hear(self, halves: float | None) -> None:
        """Take what it reports of them."""
        self._told += [] if halves is None else [halves]

    def _begun(self, beginning: Beginning, n: int) -> ServerState:
        """The state before the first round where the run began with another's models."""
        rule, known = self.past.config.aggregator, len(self.past.clients)
        rows = beginning.under(rule, self.layout, (row if row < known else -1 for row in range(n)))
        state = self.state._replace(reference=jnp.array(beginning.reference))
        if not isinstance(state.personal, np.ndarray):
            return state._replace(personal=jnp.array(np.stack(list(rows))))
        for target, own in zip(state.personal, rows, strict=True):
            target[:] = own
        return state

    @property
    def received(self) -> Any:
        """θ̄ as it receives it next: a row of its own."""
        return cloned(borrow(self.state.personal, self.row)[self.place])

    @property
    def weights(self) -> Float[np.ndarray, "groups clients"]:
        """pₖ of the last round."""
        assert self._aggregation is not None
        return np.asarray(self._aggregation.weights)[:, self.place]

    @property
    def similarity(self) -> Float[np.ndarray, "groups clients"]:
        """sₖ of the last round."""
        assert self._aggregation is not None
        return np.asarray(self._aggregation.similarity)[:, self.place]

    def rounds(self, number: int) -> Iterator[int]:
        """The run's first rounds; what `row` then holds is aggregated when the next one is asked for."""
        recorded = play(self.past.recording.rounds[:number], self._matrix[: len(self.past.clients)])
        for round, (mask, age) in enumerate(recorded, start=1):
            yield round
            n = len(self._matrix)
            mask, age = (np.append(values, 0)[:n].astype(values.dtype) for values in (mask, age))
            mask[self.place], age[self.place] = True, 0
            halves = None
            if self._halves is not None:
                told = np.append(self._halves[round - 1], np.nan)[:n]
                told[self.place] = np.mean(self._told) if self._told else np.nan
                halves = jnp.array(told, jnp.float32)
            vectors = TaskVectors(
                lend(self._matrix),
                jnp.array(mask),
                jnp.array(self._examples),
                jnp.array(age, jnp.int32),
                halves=halves,
            )
            state, aggregation = self.past.config.aggregator.update(self.state, vectors, self.layout)
            # The matrix is filled again next: nothing may be running on it then.
            self.state, self._aggregation = jax.block_until_ready((state, aggregation))

    def nearest(self, last: ServerState) -> Any:
        """The last aggregates of those it is like, as one: a row of its own.

        Each group of tensors is the mean of the others' by its own weights, of which negative ones and that
        of itself do not count; what clients do not exchange stays its own. A client that the run has takes
        its own last aggregate.

        Args:
            last: The run's last state.
        """
        models, config = last.models, self.past.config
        if self.place < len(models):
            mine = models.parts[int(models.made[self.place])][int(models.row[self.place])]
            return cloned(borrow(jnp.array(mine), self.row))
        own = self.weights.clip(min=0)
        own[:, self.place] = 0
        n, whole = len(models) + 1, own.sum(1, keepdims=True)
        weights = np.zeros((len(own), n, n), np.float32)
        weights[:, self.place] = np.divide(own, whole, out=np.zeros_like(own), where=whole > 0)
        rule = config.aggregator
        mixing: Combine = FactorWise("models")
        if isinstance(rule.combine, ProductSpace):
            mixing = replace(rule.combine, mixes="models")
        rule = replace(rule, combine=mixing, subject=Subject(), similarity=Cosine())  # nothing is compared
        plan = Plan(rule, self.layout, True, False, None)
        parts = [*(models.parts[made] for made in models.made.tolist()), self.state.personal]
        rows = [*models.row.tolist(), self.place]
        found = np.empty(self.layout.size, np.float32)
        for columns, part in panels(plan, n, config.server.memory_budget * 2**20 // PANELS, Share()):
            personal = jnp.array(read_columns(parts, rows, columns))
            step, _ = mixing(
                Round(
                    personal,
                    jnp.zeros_like(personal),
                    jnp.asarray(weights),
                    part.groups,
                    jnp.ones(n, bool),
                    part.layout,
                    last.reference[columns],
                )
            )
            found[columns] = personal[self.place] + step[self.place]
        return cloned(borrow(jnp.array(found), self.row))
