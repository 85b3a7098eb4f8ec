"""One round of the server, with the choices of an `Aggregator`: compare, weigh, combine."""

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from fedpl.records.layout import AdapterLayout
from fedpl.server.combine import FactorWise
from fedpl.server.evidence import Evidence, View, averaged, compared_vectors, shared_groups
from fedpl.server.products import columns, mix_groups, moved
from fedpl.server.round import Round
from fedpl.server.state import Aggregation, ServerState, TaskVectors
from fedpl.server.weighting import Memory

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator

_log = logging.getLogger(__name__)
_NOT_COMPILED: set["Aggregator"] = set()  # rules that have been found to look at numbers


class Plan(NamedTuple):
    """What a compiled step is made for: with any other a new one is compiled.

    Attributes:
        rule: The server rule.
        layout: All tensors.
        everyone: Whether all clients are present.
        cut: Whether a task vector is longer than the rule lets it be.
        true_groups: See `TaskVectors`.
    """

    rule: "Aggregator"
    layout: AdapterLayout
    everyone: bool
    cut: bool
    true_groups: tuple[str, ...] | None


def step(
    rule: "Aggregator", state: ServerState, vectors: TaskVectors, layout: AdapterLayout
) -> tuple[ServerState, Aggregation]:
    """See `Aggregator.update`."""
    age = jnp.zeros(len(vectors.mask), jnp.int32) if vectors.age is None else vectors.age
    seen, flags = _look(vectors.matrix, vectors.mask, age, rule.norm_bound, rule.uses_stale)
    everyone, cut = np.asarray(flags).tolist()
    plan = Plan(rule, layout, everyone, cut, vectors.true_groups)
    began, given = state._replace(round=jnp.int32(state.round)), vectors._replace(true_groups=None)
    if rule.weighting.on_host or rule in _NOT_COMPILED:
        new, aggregation = _step(plan, began, given, seen)
    else:
        try:
            new, aggregation = _compiled(began.personal, began[2:], began.round, given, seen, plan)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            # A choice of the user's own that looks at numbers without saying so.
            _log.info("the server's step is not compiled: %s", str(error).splitlines()[0])
            _NOT_COMPILED.add(rule)
            new, aggregation = _step(plan, began, given, seen)
    return new._replace(round=state.round + 1), aggregation


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


@partial(jax.jit, static_argnames=("bound", "uses_stale"))
def _look(
    matrix: Float[Array, "clients params"],
    mask: Bool[Array, "clients"],
    age: Int[Array, "clients"],
    bound: float | None,
    uses_stale: bool,
) -> tuple[Seen, Bool[Array, "2"]]:
    """One pass over the vectors, and what decides which program is needed: everyone is here; some are cut."""
    # A vector that is not finite counts as absent: it moves nobody, and its client stays where it is.
    squares = jnp.square(matrix).sum(1)
    finite = jnp.isfinite(matrix.sum(1))
    present = mask & finite
    stale = finite & ~mask & (age > 0) & uses_stale
    kept = _within(jnp.sqrt(squares), present | stale, bound)
    return Seen(present, stale, kept, age), jnp.stack([present.all(), (kept < 1).any()])


@partial(jax.jit, static_argnames="plan", donate_argnums=0)
def _compiled(
    personal: Float[Array, "clients params"],
    others: tuple,
    round: Int[Array, ""],
    vectors: TaskVectors,
    seen: Seen,
    plan: Plan,
) -> tuple[ServerState, Aggregation]:
    return _step(plan, ServerState(round, personal, *others), vectors, seen)  # type: ignore[arg-type]


def _step(
    plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen
) -> tuple[ServerState, Aggregation]:
    """Compare, weigh, combine."""
    rule, layout = plan.rule, plan.layout
    present, stale, kept, age = seen
    vectors = vectors._replace(true_groups=plan.true_groups)
    if plan.cut:
        vectors = vectors._replace(matrix=vectors.matrix * kept[:, None])
    groups = shared_groups(layout, rule.granularity, rule.shared(layout))

    taken = jnp.where(stale, rule.stale_discount**age, present.astype(jnp.float32))
    similarity, weights, new = _weigh(rule, state, vectors, layout, groups, present, taken)
    rows, row = present, weights
    if rule.weighting.one_for_all:  # the absent too: the one model is what they receive next
        rows = jnp.broadcast_to(present.any(), present.shape)
        row = jnp.broadcast_to(weights[:, jnp.argmax(present), None], weights.shape)
    p = jnp.where(rows[:, None], row if rule.weighting.signed else _in_part(row, taken), 0.0)

    round = Round(state.personal, vectors.matrix, p, groups, present | stale, layout, state.reference)
    personal, velocity, residual = _combine(rule, round, present, state, plan.everyone)
    new |= {"server": velocity, "receive": rule.receive.after(personal, state.of("receive"), present)}
    memory = {choice: {**state.of(choice), **own} for choice, own in new.items()}
    next_state = ServerState(
        state.round, personal, state.reference, {k: own for k, own in memory.items() if own}, residual
    )
    return next_state, Aggregation(similarity, jnp.where(present[:, None], p, weights), kept)


def _weigh(
    rule: "Aggregator",
    state: ServerState,
    vectors: TaskVectors,
    layout: AdapterLayout,
    groups: tuple,
    present: Bool[Array, "clients"],
    taken: Float[Array, "clients"],
) -> tuple[Array, Array, dict[str, Memory]]:
    """Similarities and weights of every group, and what each choice remembers anew."""
    usable = taken > 0
    subject, before_now = rule.subject, state.of("subject")
    compared, before, memory = compared_vectors(subject, state, vectors, present)
    compared = jnp.where(usable[:, None], compared, 0.0) if subject.space == "product" else compared
    view = View(before, compared, usable, layout, groups, subject)
    products, own = rule.similarity.products(view), view.compared
    if rule.shrink:
        whole = products[np.array(own)].sum(0, keepdims=True)
        products, own = jnp.concatenate([products, whole]), (*own, False)
    if subject.average == "products":
        products, new = averaged("products", subject.decay, before_now, products, present)
        memory |= new
    similarity = rule.similarity(products, usable)
    if subject.average == "similarity":
        known = present & (jnp.diagonal(similarity, axis1=-2, axis2=-1) > 0)
        similarity, new = averaged("similarity", subject.decay, before_now, similarity, known)
        memory |= new
    weighed = similarity
    if rule.uses_stale and rule.weighting.signed:
        weighed = similarity * taken[:, None] * taken
    evidence = Evidence(
        weighed,
        products,
        own,
        usable,
        vectors.num_examples,
        state.round,
        state.personal,
        vectors.matrix,
        vectors.true_groups,
        rule.receive.choices(state.of("receive")),
    )
    weights, new = rule.weighting.weigh(evidence, state.of("weighting"))
    if rule.shrink:
        similarity, weights = similarity[:-1], (1 - rule.shrink) * weights[:-1] + rule.shrink * weights[-1:]
    return similarity, weights, {"subject": memory, "weighting": new}


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


def _in_part(
    weights: Float[Array, "groups clients clients"], taken: Float[Array, "clients"]
) -> Float[Array, "groups clients clients"]:
    """Weights, none negative, of what counts in full or in part; rows scaled back to their sums."""
    whole = weights.sum(-1, keepdims=True)
    part = weights * taken
    total = part.sum(-1, keepdims=True)
    scaled = jnp.where(total > 0, part * (whole / jnp.where(total > 0, total, 1.0)), part)
    partly = (taken > 0) & (taken < 1)
    return jnp.where(partly.any(), scaled, part)


def _combine(
    rule: "Aggregator", round: Round, present: Bool[Array, "clients"], state: ServerState, everyone: bool
) -> tuple[Array, Memory, Array | None]:
    """New aggregates, the momentum of the steps, and the residual of the frozen weights."""
    everything = sum(entry.size for group in round.groups for entry in group) == round.layout.size
    plain = rule.combine == FactorWise() and not rule.server_momentum
    if plain and everything and (everyone or rule.weighting.one_for_all):
        steps = round._replace(weights=rule.server_lr * round.weights)
        return mix_groups(steps, base=round.personal), {}, state.residual
    step, residual = rule.combine(round)
    new: Memory = {}
    if rule.server_momentum:
        step = step + rule.server_momentum * state.of("server").get("velocity", jnp.zeros_like(step))
        new = {"velocity": step}
    if residual is None:
        residual = state.residual
    else:
        residual = (jnp.zeros_like(residual) if state.residual is None else state.residual) + residual
    step = rule.server_lr * step
    if not everything:
        step = jnp.where(columns(round), step, jnp.where(present[:, None], round.vectors, 0.0))
    # Not merely + 0: an absent client's aggregate stays bit for bit.
    moving = (moved(round) | present)[:, None]
    return jnp.where(moving, round.personal + step, round.personal), new, residual
