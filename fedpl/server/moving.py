"""The last part of a round's step: weights make new aggregates of the old ones."""

from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from fedpl.server.combine import FactorWise
from fedpl.server.deciding import Decided
from fedpl.server.looking import Plan, Seen
from fedpl.server.products import columns, mix_groups, moved
from fedpl.server.round import Round
from fedpl.server.state import Aggregation, ServerState, TaskVectors
from fedpl.server.weighting import Memory

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator


class Moved(NamedTuple):
    """What a round's weights make of the aggregates.

    Attributes:
        personal: New aggregates, as many rows as there were.
        memory: What the server and what is received remember anew.
        residual: What is added to that of the frozen weights; None: nothing.
    """

    personal: Float[Array, "rows params"]
    memory: dict[str, Memory]
    residual: Array | None


def move(
    plan: Plan,
    state: ServerState,
    vectors: TaskVectors,
    seen: Seen,
    weights: Float[Array, "groups clients clients"],
) -> Moved:
    """Combine."""
    rule, present = plan.rule, seen.present
    usable = present | seen.stale
    round = Round(state.personal, vectors.matrix, weights, plan.groups, usable, plan.layout, state.reference)
    personal, velocity, residual = _combine(rule, round, present, state, plan.everyone)
    of_each = jnp.broadcast_to(personal, vectors.matrix.shape)
    received = rule.receive.after(of_each, state.of("receive"), present)
    return Moved(personal, {"server": velocity, "receive": received}, residual)


def closed(state: ServerState, seen: Seen, decided: Decided, new: Moved) -> tuple[ServerState, Aggregation]:
    """The next state but its round, and how the round was aggregated."""
    memory = {choice: {**state.of(choice), **own} for choice, own in (decided.memory | new.memory).items()}
    kept = {choice: own for choice, own in memory.items() if own}
    residual = state.residual
    if new.residual is not None:
        residual = new.residual if residual is None else residual + new.residual
    weights = jnp.where(seen.present[:, None], decided.applied, decided.weights)
    return (
        ServerState(state.round, new.personal, state.reference, kept, residual),
        Aggregation(decided.similarity, weights, seen.kept),
    )


def _combine(
    rule: "Aggregator", round: Round, present: Bool[Array, "clients"], state: ServerState, everyone: bool
) -> tuple[Array, Memory, Array | None]:
    """New aggregates, the momentum of the steps, and what is added to the frozen weights' residual."""
    everything = sum(entry.size for group in round.groups for entry in group) == round.layout.size
    plain = rule.combine == FactorWise() and not rule.server_momentum
    rows = len(round.personal)  # one, where all clients have the same
    if plain and everything and (everyone or rule.weighting.one_for_all):
        steps = round._replace(weights=rule.server_lr * round.weights[:, :rows])
        return mix_groups(steps, base=round.personal), {}, None
    round = round._replace(personal=jnp.broadcast_to(round.personal, round.vectors.shape))
    step, residual = rule.combine(round)
    new: Memory = {}
    if rule.server_momentum:
        step = step + rule.server_momentum * state.of("server").get("velocity", jnp.zeros_like(step))
        new = {"velocity": step}
    step = rule.server_lr * step
    if not everything:
        step = jnp.where(columns(round), step, jnp.where(present[:, None], round.vectors, 0.0))
    # Not merely + 0: an absent client's aggregate stays bit for bit.
    moving = (moved(round) | present)[:, None]
    return jnp.where(moving, round.personal + step, round.personal)[:rows], new, residual
