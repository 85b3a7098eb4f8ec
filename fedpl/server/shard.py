"""A share of a round's step on disk: some columns of every client, panel by panel, in whatever process.

What is asked of a share is all that it needs: it remembers nothing, and may be asked twice.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from fedpl.mapped import read_columns, trim
from fedpl.server import programs
from fedpl.server.cutting import Panel, Share, panels
from fedpl.server.deciding import compare
from fedpl.server.evidence import View
from fedpl.server.looking import Measured, Plan, Seen, measure
from fedpl.server.moving import Moved, move
from fedpl.server.ondisk import OnDisk, Shards
from fedpl.server.similarity import Similarity
from fedpl.server.state import ServerState, TaskVectors

# Of vectors alone more fit: a panel's columns come twice and its products' windows once. Every panel also
# adds [clients, clients] to the sums, which is most of the work where panels have fewer columns than clients.
_WIDER = 2


class Part(NamedTuple):
    """What a share of a step takes.

    Attributes:
        plan: The rule, and the layout of all columns.
        state: State before the round; of its aggregates nothing, of θ₀ the share's columns.
        begin: The first of these.
        vectors: This round's task vectors, without their numbers.
        seen: Whose can be used.
        held: Where vectors and aggregates lie.
        share: Whose part it is.
    """

    plan: Plan
    state: ServerState
    begin: int
    vectors: TaskVectors
    seen: Seen
    held: OnDisk
    share: Share


class Shard:
    """Works on its share of steps in whatever process it is made."""

    def __init__(self) -> None:
        programs.keep()

    @staticmethod
    def measured(held: OnDisk, clients: int, share: Share) -> Measured:
        """One pass over some vectors, each of them in one piece, so that sums are the same for any shares."""
        rows = share.part(clients)
        matrix, found = held.vectors, []
        many = max(held.panel // max(4 * matrix.shape[1], 1), 1)
        for start in range(rows.start, rows.stop, many):
            own = jnp.array(np.asarray(matrix[start : min(start + many, rows.stop)]))
            found.append(jax.block_until_ready(measure(own)))
            held.release()
        trim()
        nothing = Measured(jnp.zeros(0), jnp.zeros(0, bool))
        return Measured(*map(jnp.concatenate, zip(nothing, *found, strict=True)))

    @staticmethod
    def compared(part: Part) -> Float[Array, "groups clients clients"]:
        """The share's part of the products of every group."""
        plan, seen = part.plan, part.seen
        clients, everywhere = len(seen.present), np.array(compared_groups(plan, seen))
        products: Array = jnp.zeros((len(plan.groups), clients, clients))
        for panel, own, came in _panels(part, _looks_at_aggregates(plan)):
            found = compare(panel.plan, own, came, seen)
            counts = np.array(found.own) | ~everywhere
            # Waited for: JAX would take in panels faster than it works on them, and hold them all.
            products = jax.block_until_ready(_add(products, found.products, counts[:, None, None]))
        return products

    @staticmethod
    def moved(part: Part, weights: Float[Any, "groups clients clients"], sync: bool) -> Moved | None:
        """New aggregates in the share's columns, where they belong; beside them what else there is.

        Args:
            part: The share.
            weights: As they are applied.
            sync: Whether another machine looks at them.

        Returns:
            What is remembered anew and the residual, without aggregates; None: the share has no columns.
        """
        memory, residuals, weights = None, [], jnp.asarray(weights)
        for panel, own, came in _panels(part, aggregates=True):
            new = move(panel.plan, own, came, part.seen, weights)
            part.held.write(panel.columns, np.asarray(new.personal))
            memory = new.memory
            residuals += [] if new.residual is None else [new.residual]
        if sync:
            part.held.target.sync()
        residual = jnp.concatenate(residuals) if residuals else None
        return None if memory is None else Moved(jnp.zeros((0, 0)), memory, residual)


class _Alone:
    """One share, worked on in this process."""

    size, far = 1, False

    def each(self, verb: str, orders: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [getattr(Shard, verb)(*order) for order in orders]


ALONE: Shards = _Alone()


def compared_groups(plan: Plan, seen: Seen) -> tuple[bool, ...]:
    """A group's products come from where it has tensors, or from everywhere if it has none: which have."""
    nothing = jnp.zeros((len(seen.present), 0))  # weightings that look at vectors are refused on disk
    subject = plan.rule.subject
    return View(nothing, nothing, seen.present, plan.layout, plan.groups, subject).compared


def _looks_at_aggregates(plan: Plan) -> bool:
    """Whether aggregates are needed to compare clients: round vectors by their products they are not."""
    subject = plan.rule.subject
    plain = type(plan.rule.similarity).products is Similarity.products
    return not plain or subject.vectors != "round" or subject.space == "product"


def _panels(part: Part, aggregates: bool) -> Iterator[tuple[Panel, ServerState, TaskVectors]]:
    """Panel by panel, with what the round has there; zeros in place of aggregates and θ₀ if not asked for."""
    plan, held, clients = part.plan, part.held, len(part.seen.present)
    size = held.panel if aggregates else _WIDER * held.panel
    for panel in panels(plan, clients, size, part.share):
        columns, width = panel.columns, panel.columns.stop - panel.columns.start
        came = jnp.array(read_columns([held.vectors] * clients, range(clients), columns))
        if plan.cut:
            came = came * part.seen.kept[:, None]
        own, reference = jnp.zeros((1, width)), jnp.zeros(width)
        if aggregates:
            own = held.read(columns)
            reference = jnp.asarray(
                part.state.reference[columns.start - part.begin : columns.stop - part.begin]
            )
        state = part.state._replace(personal=own, reference=reference)
        yield panel, state, part.vectors._replace(matrix=came)
        trim()


@partial(jax.jit, donate_argnums=0)
def _add(total: Array, part: Array, counts: Bool[Array, "groups 1 1"]) -> Array:
    return total + jnp.where(counts, part, 0.0)
