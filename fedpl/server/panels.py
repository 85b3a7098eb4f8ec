"""A round's step where task vectors and aggregates lie on disk: panel by panel, in the aggregates' place.

Products of vectors are sums over their columns, and new aggregates are made column by column (or module by
module, or block by block, where a rule looks at these): memory holds some columns of every client at a time.
"""

from collections.abc import Callable, Iterator
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

from fedpl.mapped import read_columns, trim
from fedpl.records.layout import AdapterLayout, Entry
from fedpl.server.deciding import Compared, compare, decide
from fedpl.server.evidence import View
from fedpl.server.looking import Measured, Plan, look, measure
from fedpl.server.models import Models
from fedpl.server.moving import Moved, closed, move
from fedpl.server.ondisk import PANEL, PANELS, OnDisk
from fedpl.server.state import Aggregation, ServerState, TaskVectors
from fedpl.server.storage import problems_on_disk

_ROWS = 8  # of a client at once: what it received and sends, as they are looked at and written

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator


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
    """See `Aggregator.update`; the state's aggregates are `OnDisk`, or an array that is overwritten.

    Args:
        rule: One that needs no whole vectors.
        state: State after the previous round.
        vectors: This round's task vectors.
        layout: Says which columns form a group.
        size: Bytes of a matrix that are worked on at once, where the aggregates do not say.

    Raises:
        ValueError: If the rule needs whole vectors.
    """
    if wrong := problems_on_disk(rule):
        raise ValueError(wrong[0])
    held = _held(state.personal, size)
    matrix = np.asarray(vectors.matrix)
    clients = len(matrix)
    plan, seen = look(rule, vectors, layout, _measured(matrix, held))
    lying = [matrix if held.vectors is None else held.vectors] * clients
    rule = plan.rule
    state = state._replace(round=jnp.int32(state.round))

    def parts() -> Iterator[tuple[Panel, ServerState, TaskVectors]]:
        for panel in _panels(plan, clients, held.panel):
            own = held.read(panel.columns)
            came = jnp.array(read_columns(lying, range(clients), panel.columns))
            if plan.cut:
                came = came * seen.kept[:, None]
            reference = state.reference[panel.columns]
            yield panel, state._replace(personal=own, reference=reference), vectors._replace(matrix=came)
            trim()

    nothing = jnp.zeros((clients, 0))  # weightings that look at vectors are refused on disk
    # A group's products come from where it has tensors, or from everywhere if it has none.
    everywhere = View(nothing, nothing, seen.present, layout, plan.groups, rule.subject).compared
    products: Array = jnp.zeros((len(plan.groups), clients, clients))
    for panel, own, came in parts():
        found = compare(panel.plan, own, came, seen)
        counts = np.array(found.own) | ~np.array(everywhere)
        # Waited for: JAX would take in panels faster than it works on them, and hold them all.
        products = jax.block_until_ready(_add(products, found.products, counts[:, None, None]))
    compared = Compared(products, everywhere, {})
    known = state._replace(personal=nothing), vectors._replace(matrix=nothing)
    decided = decide(plan, *known, seen, compared)

    memory, residuals = {}, []
    for panel, own, came in parts():
        new = move(panel.plan, own, came, seen, decided.applied)
        held.write(panel.columns, np.asarray(new.personal))
        memory = new.memory
        residuals += [] if new.residual is None else [new.residual]
    residual = jnp.concatenate(residuals) if residuals else None
    next_state, aggregation = closed(state, seen, decided, Moved(state.personal, memory, residual))
    return next_state._replace(round=int(state.round) + 1), aggregation


def _held(personal: Any, size: int) -> OnDisk:
    if isinstance(personal, OnDisk):
        return personal
    if not isinstance(personal, np.ndarray):
        raise TypeError(f"expected aggregates as a NumPy array, got {type(personal).__name__}")
    places = np.arange(len(personal), dtype=np.int32)
    return OnDisk(Models({0: personal}, np.zeros_like(places), places), places, personal, size)


def _measured(matrix: np.ndarray, held: OnDisk) -> Measured:
    """One pass over the vectors, some at a time; each of them in one piece, so that sums are the same."""
    found, many = [], max(held.panel // max(4 * matrix.shape[1], 1), 1)
    for start in range(0, len(matrix), many):
        found.append(jax.block_until_ready(measure(jnp.array(matrix[start : start + many]))))
        held.release()
    trim()
    return Measured(*map(jnp.concatenate, zip(*found, strict=True)))


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


def least_budget(rule: "Aggregator", layout: AdapterLayout, clients: int) -> int:
    """Bytes of task vectors and aggregates that must be in memory at a time, at least.

    Args:
        rule: A rule that can do with the disk.
        layout: All tensors.
        clients: As many as are worked on in a round.
    """
    key = _together(rule)
    units = [[1]] if key is None else [[e.size for e in unit] for _, unit in groupby(layout.entries, key)]
    return 4 * max(PANELS * clients * max(map(sum, units)), _ROWS * layout.size)


def _together(rule: "Aggregator") -> Callable[[Entry], object] | None:
    """Blocks where their lengths count, modules where products of factors do; None: any columns."""
    if getattr(rule.combine, "match_norm", False):
        return attrgetter("block")
    if rule.combine.by_pair or rule.similarity.by_pair or rule.subject.space == "product":
        return attrgetter("module")
    return None


def _units(plan: Plan, width: int) -> Iterator[list[Entry]]:
    """What a rule needs together."""
    entries, key = plan.layout.entries, _together(plan.rule)
    if key is not None:
        yield from (list(unit) for _, unit in groupby(entries, key))
        return
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
