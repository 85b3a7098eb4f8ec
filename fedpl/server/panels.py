"""A round's step where task vectors and aggregates lie on disk: panel by panel, in the aggregates' place.

Products of vectors are sums over their columns, and new aggregates are made column by column (or module by
module, or block by block, where a rule looks at these): memory holds some columns of every client at a time,
and several processes can share the columns.
"""

from functools import reduce
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from fedpl.records.layout import AdapterLayout
from fedpl.server.cutting import Share, panels
from fedpl.server.deciding import Compared, decide
from fedpl.server.looking import Measured, Plan, Seen, look
from fedpl.server.models import Models
from fedpl.server.moving import Moved, closed
from fedpl.server.ondisk import PANEL, OnDisk
from fedpl.server.shard import ALONE, Part, compared_groups
from fedpl.server.state import Aggregation, ServerState, TaskVectors
from fedpl.server.storage import problems_on_disk

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator


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
    if held.vectors is None:
        held = held._replace(vectors=np.asarray(vectors.matrix))
    shards, clients = held.shards or ALONE, len(vectors.mask)
    held = held._replace(shards=None)  # each has its part
    if shards.far:
        held.vectors.sync()
    shares = [Share(number, shards.size) for number in range(shards.size)]
    measured = shards.each("measured", [(held, clients, share) for share in shares])
    plan, seen = look(rule, vectors, layout, Measured(*map(jnp.concatenate, zip(*measured, strict=True))))
    state = state._replace(round=jnp.int32(state.round))
    vectors = vectors._replace(matrix=jnp.zeros((clients, 0)))
    parts = [_part(plan, state, vectors, seen, held, share) for share in shares]

    products = reduce(jnp.add, shards.each("compared", [(part,) for part in parts]))
    compared = Compared(products, compared_groups(plan, seen), {})
    decided = decide(plan, state._replace(personal=vectors.matrix), vectors, seen, compared)

    moved = shards.each("moved", [(part, decided.applied, shards.far) for part in parts])
    if shards.far:
        held.target.look_again()
    memory, residual = _joined(moved)
    next_state, aggregation = closed(state, seen, decided, Moved(state.personal, memory, residual))
    return next_state._replace(round=int(state.round) + 1), aggregation


def _held(personal: Any, size: int) -> OnDisk:
    if isinstance(personal, OnDisk):
        return personal
    if not isinstance(personal, np.ndarray):
        raise TypeError(f"expected aggregates as a NumPy array, got {type(personal).__name__}")
    places = np.arange(len(personal), dtype=np.int32)
    return OnDisk(Models({0: personal}, np.zeros_like(places), places), places, personal, size)


def _part(
    plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen, held: OnDisk, share: Share
) -> Part:
    """What a share takes: of θ₀ its own columns."""
    own = [panel.columns for panel in panels(plan, len(seen.present), held.panel, share)]
    begin, stop = (own[0].start, own[-1].stop) if own else (0, 0)
    reference: Any = np.asarray(state.reference)[begin:stop]
    bare = state._replace(personal=vectors.matrix, reference=reference, residual=None)
    return Part(plan, bare, begin, vectors, seen, held, share)


def _joined(moved: list[Moved | None]) -> tuple[dict[str, Any], Any]:
    """What shares remember, each the same, and the residual of all of them."""
    done = [each for each in moved if each is not None]
    residuals = [jnp.asarray(each.residual) for each in done if each.residual is not None]
    return done[-1].memory, jnp.concatenate(residuals) if residuals else None
