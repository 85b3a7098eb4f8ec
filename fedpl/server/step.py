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
from fedpl.server.evidence import Evidence, View, averaged, compared_vectors
from fedpl.server.looking import Plan, Seen, look
from fedpl.server.moving import Moved, move
from fedpl.server.state import Aggregation, ServerState, TaskVectors
from fedpl.server.weighting import Memory

if TYPE_CHECKING:  # the rule whose step it is: its settings, read as a value
    from fedpl.server.aggregator import Aggregator

_log = logging.getLogger(__name__)
_NOT_COMPILED: set["Aggregator"] = set()  # rules that have been found to look at numbers


def step(
    rule: "Aggregator", state: ServerState, vectors: TaskVectors, layout: AdapterLayout
) -> tuple[ServerState, Aggregation]:
    """See `Aggregator.update`."""
    plan, seen = look(rule, vectors, layout)
    began, given = state._replace(round=jnp.int32(state.round)), vectors._replace(true_groups=None)
    if rule.weighting.on_host or rule in _NOT_COMPILED:
        new, aggregation = _in_parts(plan, began, given, seen)
    else:
        try:
            new, aggregation = _compiled(began.personal, began[2:], began.round, given, seen, plan)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            # A choice of the user's own that looks at numbers without saying so.
            _log.info("the server's step is not compiled: %s", str(error).splitlines()[0])
            _NOT_COMPILED.add(rule)
            new, aggregation = _in_parts(plan, began, given, seen)
    return new._replace(round=state.round + 1), aggregation


class Decided(NamedTuple):
    """How task vectors are going to be mixed.

    Attributes:
        similarity: sᵢₖ of every group.
        weights: pᵢₖ of every group, before anybody is absent.
        applied: pᵢₖ as they are applied.
        memory: What each choice remembers anew.
    """

    similarity: Float[Array, "groups clients clients"]
    weights: Float[Array, "groups clients clients"]
    applied: Float[Array, "groups clients clients"]
    memory: dict[str, Memory]


@partial(jax.jit, static_argnames="plan", donate_argnums=0)
def _compiled(
    personal: Float[Array, "clients params"],
    others: tuple,
    round: Int[Array, ""],
    vectors: TaskVectors,
    seen: Seen,
    plan: Plan,
) -> tuple[ServerState, Aggregation]:
    state = ServerState(round, personal, *others)  # type: ignore[arg-type]
    vectors = _cut(plan, vectors, seen)
    decided = _decide(plan, state, vectors, seen)
    return _closed(state, seen, decided, move(plan, state, vectors, seen, decided.applied))


def _in_parts(
    plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen
) -> tuple[ServerState, Aggregation]:
    """The same where weights are found on the host; new aggregates take the old ones' place all the same."""
    vectors = _cut(plan, vectors, seen)
    decided = _decide(plan, state, vectors, seen)
    memory = {
        choice: state.of(choice) for choice in ("server", "receive")
    }  # and no more: it would compile anew
    others = (state.reference, memory, state.residual)
    return _closed(state, seen, decided, _moved(state.personal, others, vectors, seen, decided.applied, plan))


@partial(jax.jit, static_argnames="plan", donate_argnums=0)
def _moved(
    personal: Float[Array, "clients params"],
    others: tuple,
    vectors: TaskVectors,
    seen: Seen,
    weights: Float[Array, "groups clients clients"],
    plan: Plan,
) -> Moved:
    return move(plan, ServerState(0, personal, *others), vectors, seen, weights)


def _cut(plan: Plan, vectors: TaskVectors, seen: Seen) -> TaskVectors:
    return vectors._replace(matrix=vectors.matrix * seen.kept[:, None]) if plan.cut else vectors


def _decide(plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen) -> Decided:
    """Compare and weigh."""
    rule, layout = plan.rule, plan.layout
    present, stale, _, age = seen
    vectors = vectors._replace(true_groups=plan.true_groups)
    taken = jnp.where(stale, rule.stale_discount**age, present.astype(jnp.float32))
    similarity, weights, new = _weigh(rule, state, vectors, layout, plan.groups, present, taken)
    rows, row = present, weights
    if rule.weighting.one_for_all:  # the absent too: the one model is what they receive next
        rows = jnp.broadcast_to(present.any(), present.shape)
        row = jnp.broadcast_to(weights[:, jnp.argmax(present), None], weights.shape)
    p = jnp.where(rows[:, None], row if rule.weighting.signed else _in_part(row, taken), 0.0)
    return Decided(similarity, weights, p, new)


def _closed(state: ServerState, seen: Seen, decided: Decided, new: Moved) -> tuple[ServerState, Aggregation]:
    memory = {choice: {**state.of(choice), **own} for choice, own in (decided.memory | new.memory).items()}
    kept = {choice: own for choice, own in memory.items() if own}
    weights = jnp.where(seen.present[:, None], decided.applied, decided.weights)
    return (
        ServerState(state.round, new.personal, state.reference, kept, new.residual),
        Aggregation(decided.similarity, weights, seen.kept),
    )


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
