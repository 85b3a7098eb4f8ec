"""A round's step where task vectors and aggregates lie on disk: panel by panel, in the aggregates' place.

Products of vectors are sums over transformer blocks, and new aggregates are made block by block: memory holds
some blocks of every client at a time.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from fedpl.records.layout import AdapterLayout, Entry
from fedpl.server.deciding import Compared, compare, decide
from fedpl.server.looking import Plan, look
from fedpl.server.moving import Moved, closed, move
from fedpl.server.state import Aggregation, ServerState, TaskVectors

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator

PANEL = 2**27  # bytes of one matrix at a time, or one block if that has more


class Panel(NamedTuple):
    """Some blocks.

    Attributes:
        columns: Where they are.
        plan: The step's plan for these columns alone.
    """

    columns: slice
    plan: Plan


def step_in_panels(
    rule: "Aggregator", state: ServerState, vectors: TaskVectors, layout: AdapterLayout, size: int = PANEL
) -> tuple[ServerState, Aggregation]:
    """See `Aggregator.update`; the state's aggregates are a writable NumPy array and are overwritten.

    Args:
        rule: One that `on_disk` takes.
        state: State after the previous round.
        vectors: This round's task vectors.
        layout: Says which columns form a group.
        size: Bytes of a matrix that are worked on at once.
    """
    personal: Any = state.personal
    matrix = np.asarray(vectors.matrix)
    if not isinstance(personal, np.ndarray):
        raise TypeError(f"expected aggregates as a NumPy array, got {type(personal).__name__}")
    plan, seen = look(rule, vectors, layout)
    state = state._replace(round=jnp.int32(state.round))

    def parts() -> Iterator[tuple[Panel, ServerState, TaskVectors]]:
        for panel in _panels(plan, len(personal), size):
            own = jnp.array(personal[:, panel.columns])
            came = jnp.array(matrix[:, panel.columns])
            if plan.cut:
                came = came * seen.kept[:, None]
            reference = state.reference[panel.columns]
            yield panel, state._replace(personal=own, reference=reference), vectors._replace(matrix=came)

    compared = _sum([compare(panel.plan, own, came, seen) for panel, own, came in parts()])
    nothing = jnp.zeros((len(personal), 0))  # weightings that look at vectors are refused on disk
    known = state._replace(personal=nothing), vectors._replace(matrix=nothing)
    decided = decide(plan, *known, seen, compared)

    memory, residuals = {}, []
    for panel, own, came in parts():
        before = own._replace(residual=None)
        new: Moved = move(panel.plan, before, came, seen, decided.applied)
        personal[:, panel.columns] = np.asarray(new.personal)
        memory = new.memory
        residuals += [] if new.residual is None else [new.residual]
    residual = _shifted(state.residual, residuals)
    next_state, aggregation = closed(state, seen, decided, Moved(state.personal, memory, residual))
    return next_state._replace(round=int(state.round) + 1), aggregation


def _panels(plan: Plan, clients: int, size: int) -> Iterator[Panel]:
    """Neighbouring blocks, as many as fit."""
    entries: list[Entry] = []
    for block in plan.layout.blocks:
        own = [entry for entry in plan.layout.entries if entry.block == block]
        if entries and 4 * clients * (own[-1].stop - entries[0].start) > size:
            yield _panel(plan, entries)
            entries = []
        entries += own
    yield _panel(plan, entries)


def _panel(plan: Plan, entries: list[Entry]) -> Panel:
    start = entries[0].start
    moved = {entry.name: replace(entry, start=entry.start - start) for entry in entries}
    groups = tuple(tuple(moved[e.name] for e in group if e.name in moved) for group in plan.groups)
    layout = AdapterLayout(tuple(moved.values()), plan.layout.scale)
    return Panel(slice(start, entries[-1].stop), plan._replace(layout=layout, own_groups=groups))


def _sum(parts: list[Compared]) -> Compared:
    """Products of all panels; a group's come from where it has tensors, or from everywhere if it has none."""
    own = tuple(np.any([compared.own for compared in parts], 0).tolist())
    products: Array = jnp.zeros_like(parts[0].products)
    for compared in parts:
        counts = np.array(compared.own) | ~np.array(own)
        products = products + jnp.where(counts[:, None, None], compared.products, 0.0)
    return Compared(products, own, {})


def _shifted(before: Array | None, parts: list[Array]) -> Array | None:
    """The residual of the frozen weights with a round's own."""
    if not parts:
        return before
    new = jnp.concatenate(parts)
    return new if before is None else before + new
