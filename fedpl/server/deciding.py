"""The first parts of a round's step: vectors are compared, and similarities become weights."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from fedpl.server.evidence import Evidence, View, averaged, compared_vectors
from fedpl.server.looking import Plan, Seen
from fedpl.server.state import ServerState, TaskVectors
from fedpl.server.weighting import Memory


class Compared(NamedTuple):
    """What is known of every pair of clients.

    Attributes:
        products: Inner products of every group.
        own: Which groups have compared tensors of their own; the others' values are those of all.
        memory: What the subject remembers anew.
    """

    products: Float[Array, "groups clients clients"]
    own: tuple[bool, ...]
    memory: Memory


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


def compare(plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen) -> Compared:
    """Inner products of what the rule compares.

    Args:
        plan: The rule, and the layout of the matrices' columns.
        state: State before the round.
        vectors: This round's task vectors.
        seen: Whose can be used.
    """
    rule = plan.rule
    subject, usable = rule.subject, seen.present | seen.stale
    vectors_of, before, memory = compared_vectors(subject, state, vectors, seen.present)
    vectors_of = jnp.where(usable[:, None], vectors_of, 0.0) if subject.space == "product" else vectors_of
    view = View(before, vectors_of, usable, plan.layout, plan.groups, subject)
    return Compared(rule.similarity.products(view), view.compared, memory)


def decide(plan: Plan, state: ServerState, vectors: TaskVectors, seen: Seen, compared: Compared) -> Decided:
    """Similarities and weights of every group, as they are applied, and what each choice remembers anew.

    Args:
        plan: The rule.
        state: State before the round.
        vectors: This round's task vectors.
        seen: Whose can be used.
        compared: What is known of every pair of clients.
    """
    rule = plan.rule
    present, stale, _, age = seen
    taken = jnp.where(stale, rule.stale_discount**age, present.astype(jnp.float32))
    usable = taken > 0
    subject, before_now = rule.subject, state.of("subject")
    products, own, memory = compared
    if rule.shrink:
        whole = products[np.array(own)].sum(0, keepdims=True)
        products, own = jnp.concatenate([products, whole]), (*own, False)
    if subject.average == "products":
        products, new = averaged("products", subject.decay, before_now, products, present)
        memory = memory | new
    similarity = rule.similarity(products, usable)
    if subject.average == "similarity":
        known = present & (jnp.diagonal(similarity, axis1=-2, axis2=-1) > 0)
        similarity, new = averaged("similarity", subject.decay, before_now, similarity, known)
        memory = memory | new
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
        plan.true_groups,
        rule.receive.choices(state.of("receive")),
        vectors.halves,
    )
    weights, new = rule.weighting.weigh(evidence, state.of("weighting"))
    if rule.shrink:
        similarity, weights = similarity[:-1], (1 - rule.shrink) * weights[:-1] + rule.shrink * weights[-1:]
    rows, row = present, weights
    if rule.weighting.one_for_all:  # the absent too: the one model is what they receive next
        rows = jnp.broadcast_to(present.any(), present.shape)
        row = jnp.broadcast_to(weights[:, jnp.argmax(present), None], weights.shape)
    p = jnp.where(rows[:, None], row if rule.weighting.signed else _in_part(row, taken), 0.0)
    return Decided(similarity, weights, p, {"subject": memory, "weighting": new})


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
