"""Before a round's step: whose task vectors can be used, and which program that takes."""

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from fedpl.records.layout import AdapterLayout, Entry
from fedpl.server.evidence import shared_groups
from fedpl.server.state import TaskVectors

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator


class Plan(NamedTuple):
    """What a compiled step is made for: with any other a new one is compiled.

    Attributes:
        rule: The server rule.
        layout: All tensors.
        everyone: Whether all clients are present.
        cut: Whether a task vector is longer than the rule lets it be.
        true_groups: See `TaskVectors`.
        own_groups: Groups of tensors where the layout is a part of another; None: the rule's groups of it.
    """

    rule: "Aggregator"
    layout: AdapterLayout
    everyone: bool
    cut: bool
    true_groups: tuple[str, ...] | None
    own_groups: tuple[tuple[Entry, ...], ...] | None = None

    @property
    def groups(self) -> tuple[tuple[Entry, ...], ...]:
        """Tensors that are compared and mixed together."""
        if self.own_groups is not None:
            return self.own_groups
        return shared_groups(self.layout, self.rule.granularity, self.rule.shared(self.layout))


class Measured(NamedTuple):
    """What one pass says of every vector.

    Attributes:
        squares: Its length, squared.
        finite: Whether all of it is.
    """

    squares: Float[Array, "clients"]
    finite: Bool[Array, "clients"]


class Seen(NamedTuple):
    """Whose task vectors can be used, before anything is compared.

    Attributes:
        present: Whose vector of this round can.
        stale: Whose last one counts in part.
        kept: Factors that make vectors no longer than they may be.
        age: Rounds since they were sent.
    """

    present: Bool[Array, "clients"]
    stale: Bool[Array, "clients"]
    kept: Float[Array, "clients"]
    age: Int[Array, "clients"]


def look(
    rule: "Aggregator", vectors: TaskVectors, layout: AdapterLayout, measured: Measured | None = None
) -> tuple[Plan, Seen]:
    """One pass over the vectors; the only numbers that the host waits for before a step.

    Args:
        rule: The rule.
        vectors: The vectors.
        layout: All tensors.
        measured: What `measure` says of them, where the pass has been made.
    """
    if rule.subject.space == "head" or rule.subject.centred:
        rule = replace(rule, subject=rule.subject.of(layout))
    age = np.zeros(len(vectors.mask), np.int32) if vectors.age is None else vectors.age
    usable = vectors.mask, age, rule.norm_bound, rule.uses_stale
    seen, flags = _look(vectors.matrix, *usable) if measured is None else _judged(measured, *usable)
    everyone, cut = np.asarray(flags).tolist()
    return Plan(rule, layout, everyone, cut, vectors.true_groups), seen


@jax.jit
def measure(matrix: Float[Array, "clients params"]) -> Measured:
    """One pass over some vectors."""
    return Measured(jnp.square(matrix).sum(1), jnp.isfinite(matrix.sum(1)))


@partial(jax.jit, static_argnames=("bound", "uses_stale"))
def _look(
    matrix: Float[Array, "clients params"],
    mask: Bool[Array, "clients"],
    age: Int[Array, "clients"],
    bound: float | None,
    uses_stale: bool,
) -> tuple[Seen, Bool[Array, "2"]]:
    """One pass over the vectors, and what decides which program is needed: everyone is here; some are cut."""
    return _judged(measure(matrix), mask, age, bound, uses_stale)


@partial(jax.jit, static_argnames=("bound", "uses_stale"))
def _judged(
    measured: Measured,
    mask: Bool[Array, "clients"],
    age: Int[Array, "clients"],
    bound: float | None,
    uses_stale: bool,
) -> tuple[Seen, Bool[Array, "2"]]:
    # A vector that is not finite counts as absent: it moves nobody, and its client stays where it is.
    squares, finite = measured
    present = mask & finite
    stale = finite & ~mask & (age > 0) & uses_stale
    kept = _within(jnp.sqrt(squares), present | stale, bound)
    return Seen(present, stale, kept, age), jnp.stack([present.all(), (kept < 1).any()])


def _within(
    lengths: Float[Array, "clients"], usable: Bool[Array, "clients"], bound: float | None
) -> Float[Array, "clients"]:
    """Factors that make task vectors no longer than so many times their median length.

    It is the lower median of those that moved: it stands while at most half of them are absurd.
    """
    if bound is None:
        return jnp.ones(len(lengths))
    moved = usable & (lengths > 0)
    order = jnp.sort(jnp.where(moved, lengths, jnp.inf))
    limit = bound * order[jnp.maximum(moved.sum() - 1, 0) // 2]
    return jnp.where(moved & (lengths > limit), limit / lengths, 1.0)
