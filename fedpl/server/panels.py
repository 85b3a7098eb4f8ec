"""A round's step where task vectors and aggregates lie on disk: panel by panel, in the aggregates' place.

Products of vectors are sums over their columns, and new aggregates are made column by column (or module by
module, or block by block, where a rule looks at these): memory holds some columns of every client at a time.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool

from fedpl.records.layout import AdapterLayout, Entry
from fedpl.server.deciding import Compared, compare, decide
from fedpl.server.evidence import View
from fedpl.server.looking import Plan, look
from fedpl.server.moving import Moved, closed, move
from fedpl.server.state import Aggregation, ServerState, TaskVectors
from fedpl.server.storage import problems_on_disk

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator

PANEL = 2**25  # bytes of one matrix at a time


class Panel(NamedTuple):
    """Some columns.

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
        rule: One that needs no whole vectors.
        state: State after the previous round.
        vectors: This round's task vectors.
        layout: Says which columns form a group.
        size: Bytes of a matrix that are worked on at once.

    Raises:
        ValueError: If the rule needs whole vectors.
    """
    if wrong := problems_on_disk(rule):
        raise ValueError(wrong[0])
    personal: Any = state.personal
    matrix = np.asarray(vectors.matrix)
    if not isinstance(personal, np.ndarray):
        raise TypeError(f"expected aggregates as a NumPy array, got {type(personal).__name__}")
    plan, seen = look(rule, vectors, layout)
    rule = plan.rule
    state = state._replace(round=jnp.int32(state.round))

    def parts() -> Iterator[tuple[Panel, ServerState, TaskVectors]]:
        for panel in _panels(plan, len(personal), size):
            own = jnp.array(personal[:, panel.columns])
            came = jnp.array(matrix[:, panel.columns])
            if plan.cut:
                came = came * seen.kept[:, None]
            reference = state.reference[panel.columns]
            yield panel, state._replace(personal=own, reference=reference), vectors._replace(matrix=came)

    nothing = jnp.zeros((len(personal), 0))  # weightings that look at vectors are refused on disk
    # A group's products come from where it has tensors, or from everywhere if it has none.
    everywhere = View(nothing, nothing, seen.present, layout, plan.groups, rule.subject).compared
    products: Array = jnp.zeros((len(plan.groups), len(personal), len(personal)))
    for panel, own, came in parts():
        found = compare(panel.plan, own, came, seen)
        counts = np.array(found.own) | ~np.array(everywhere)
        products = _add(products, found.products, counts[:, None, None])
    compared = Compared(products, everywhere, {})
    known = state._replace(personal=nothing), vectors._replace(matrix=nothing)
    decided = decide(plan, *known, seen, compared)

    memory, residuals = {}, []
    for panel, own, came in parts():
        new = move(panel.plan, own, came, seen, decided.applied)
        personal[:, panel.columns] = np.asarray(new.personal)
        memory = new.memory
        residuals += [] if new.residual is None else [new.residual]
    residual = jnp.concatenate(residuals) if residuals else None
    next_state, aggregation = closed(state, seen, decided, Moved(state.personal, memory, residual))
    return next_state._replace(round=int(state.round) + 1), aggregation


def _panels(plan: Plan, clients: int, size: int) -> Iterator[Panel]:
    """Neighbouring columns, as many as fit; what the rule needs together is not cut."""
    width = max(size // (4 * clients), 1)
    entries: list[Entry] = []
    for unit in _units(plan, width):
        if entries and unit[-1].stop - entries[0].start > width:
            yield _panel(plan, entries)
            entries = []
        entries += unit
    yield _panel(plan, entries)


def _units(plan: Plan, width: int) -> Iterator[list[Entry]]:
    """Blocks where their lengths count, modules where products of factors do, else columns."""
    rule, entries = plan.rule, plan.layout.entries
    if getattr(rule.combine, "match_norm", False):
        yield from (list(block) for _, block in groupby(entries, attrgetter("block")))
    elif rule.combine.by_pair or rule.similarity.by_pair or rule.subject.space == "product":
        yield from (list(module) for _, module in groupby(entries, attrgetter("module")))
    else:
        for entry in entries:
            for start in range(entry.start, entry.stop, width):
                length = min(width, entry.stop - start)
                yield [replace(entry, name=f"{entry.name}:{start}", shape=(length,), start=start)]


def _panel(plan: Plan, entries: list[Entry]) -> Panel:
    first, stop = entries[0].start, entries[-1].stop
    own = tuple(replace(entry, start=entry.start - first) for entry in entries)
    group = {entry.name: i for i, group in enumerate(plan.groups) for entry in group}
    groups: list[list[Entry]] = [[] for _ in plan.groups]
    for entry in own:
        name = entry.name.rpartition(":")[0] or entry.name
        if name in group:
            groups[group[name]].append(entry)
    layout = AdapterLayout(own, plan.layout.scale)
    return Panel(slice(first, stop), plan._replace(layout=layout, own_groups=tuple(map(tuple, groups))))


@partial(jax.jit, donate_argnums=0)
def _add(total: Array, part: Array, counts: Bool[Array, "groups 1 1"]) -> Array:
    return total + jnp.where(counts, part, 0.0)
