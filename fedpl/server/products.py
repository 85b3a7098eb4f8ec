"""Arithmetic of combining: weighted sums of tensors by group, and weighted sums of LoRA products."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from fedpl_kernels import mix_blocks
from jax import Array
from jaxtyping import Bool, Float, Int

from fedpl.records.following import starts
from fedpl.records.layout import Entry, merge_ranges
from fedpl.server.round import Round

_TINY = 1e-30


def mix_groups(
    round: Round, base: Float[Array, "clients params"] | None = None, *, donate: bool = False
) -> Float[Array, "clients params"]:
    """Σₖ pᵢₖ vₖ in the columns of every group, zero elsewhere.

    Args:
        round: Weights, groups and vectors v.
        base: The sums are added to it in place.
        donate: The sums take the place of v, whose other columns stay.
    """
    ranges = [(i, part) for i, group in enumerate(round.groups) for part in merge_ranges(group)]
    if not ranges:
        return round.vectors if donate else jnp.zeros_like(round.vectors) if base is None else base
    groups = [i for i, _ in ranges]
    p = round.weights if groups == list(range(len(round.groups))) else round.weights[jnp.array(groups)]
    boundaries = tuple(part for _, part in ranges)
    mixed: Any = mix_blocks(p, round.vectors, boundaries, round.mask, base=base, donate=donate)
    return mixed


def mix_models(round: Round) -> Float[Array, "clients params"]:
    """Steps Σₖ pᵢₖ θₖ − θ̄ᵢ in the columns of every group; zero elsewhere, and for clients without weights.

    Beside aggregates and task vectors there is one matrix: θ, then the sums, then the steps.
    """
    mixed = mix_groups(round._replace(vectors=round.personal + round.vectors), donate=True)
    return _onto_own(mixed, round.personal, moved(round), columns(round))


def mix_with_followers(round: Round) -> Float[Array, "clients params"]:
    """Steps to Σₖ pᵢₖ τₖ on top of the own aggregate, or of those of the clients that one follows (`starts`);
    zero as in `mix_models`, and no more memory."""
    weights = starts(round.weights, jnp)
    follows = (jnp.diagonal(weights, axis1=-2, axis2=-1) == 0).any()
    # As a rule nobody does, and a pass over all aggregates is saved.
    ways = (
        lambda: jnp.copy(round.personal),
        lambda: mix_groups(round._replace(vectors=round.personal, weights=weights)),
    )
    traced = isinstance(follows, jax.core.Tracer)
    bases = jax.lax.cond(follows, ways[1], ways[0]) if traced else ways[int(follows)]()
    mixed = mix_groups(round, base=bases)
    return _onto_own(mixed, round.personal, moved(round), columns(round))


@partial(jax.jit, donate_argnums=0)
def _onto_own(
    mixed: Float[Array, "clients params"],
    personal: Float[Array, "clients params"],
    clients: Bool[Array, "clients"],
    inside: Bool[Array, "params"],
) -> Float[Array, "clients params"]:
    return jnp.where(clients[:, None] & inside, mixed - personal, 0.0)


def moved(round: Round) -> Bool[Array, "clients"]:
    """Clients with a weight that is not zero."""
    return (round.weights != 0).any((0, 2))


def columns(round: Round) -> Bool[Array, "params"]:
    """Which columns belong to a group."""
    inside = jnp.zeros(round.layout.size, bool)
    for group in round.groups:
        for start, stop in merge_ranges(group):
            inside = inside.at[start:stop].set(True)
    return inside


def scale_to_own(round: Round, step: Float[Array, "clients params"]) -> Float[Array, "clients params"]:
    """Steps as long as the clients' own task vectors, group by group; in the place of the given ones."""
    return _scaled(step, round.vectors, tuple(merge_ranges(group) for group in round.groups if group))


@partial(jax.jit, static_argnames="groups", donate_argnums=0)
def _scaled(
    step: Float[Array, "clients params"],
    vectors: Float[Array, "clients params"],
    groups: tuple[tuple[tuple[int, int], ...], ...],
) -> Float[Array, "clients params"]:
    for ranges in groups:
        own, new = (jnp.sqrt(sum(jnp.square(x[:, a:b]).sum(1) for a, b in ranges)) for x in (vectors, step))
        factor = jnp.where(new > _TINY, own / jnp.maximum(new, _TINY), 1.0)[:, None]
        for start, stop in ranges:
            step = step.at[:, start:stop].multiply(factor)
    return step


@partial(jax.jit, donate_argnums=0)
def _put(
    step: Float[Array, "clients params"], start: Int[Array, ""], values: Float[Array, "clients _"]
) -> Float[Array, "clients params"]:
    """The steps with other columns from there on, in their place."""
    return jax.lax.dynamic_update_slice(step, values, (0, start))


def _after(round: Round, entry: Entry) -> Float[Array, "clients _ _"]:
    """A factor of every client once its task vector is added."""
    part = slice(entry.start, entry.stop)
    came = jnp.where(round.mask[:, None], round.vectors[:, part], 0.0)
    return (round.personal[:, part] + came).reshape(-1, *entry.shape)


def _factors(matrix: Array, a: Entry, b: Entry) -> tuple[Array, Array]:
    return (
        matrix[:, a.start : a.stop].reshape(-1, *a.shape),
        matrix[:, b.start : b.stop].reshape(-1, *b.shape),
    )


def mix_products(round: Round, *, models: bool, balance: bool) -> Float[Array, "clients params"]:
    """Steps to the best rank-r factors of the mixed products; the head's steps are factor-wise.

    Args:
        round: Weights, groups and vectors.
        models: Mix the models' products, rather than their changes onto the client's own.
        balance: Share singular values evenly between A and B.
    """
    step = mix_models(round) if models else mix_groups(round)
    place = {entry.name: i for i, group in enumerate(round.groups) for entry in group}
    active = moved(round)
    for a, b in round.layout.pairs:
        if a.name not in place or b.name not in place:
            continue
        p = round.weights[place[b.name]]
        old, new = _factors(round.personal, a, b), (_after(round, a), _after(round, b))
        found_a, found_b = _truncated(p, *old, *new, models, balance)
        for entry, found, before in ((a, found_a, old[0]), (b, found_b, old[1])):
            change = jnp.where(active[:, None, None], found - before, 0.0).reshape(len(found), -1)
            step = _put(step, jnp.asarray(entry.start), change)
    return step


@partial(jax.jit, static_argnames=("models", "balance"))
def _truncated(
    p: Float[Array, "n n"],
    a_old: Float[Array, "n r d_in"],
    b_old: Float[Array, "n d_out r"],
    a_new: Float[Array, "n r d_in"],
    b_new: Float[Array, "n d_out r"],
    models: bool,
    balance: bool,
) -> tuple[Float[Array, "n r d_in"], Float[Array, "n d_out r"]]:
    n, r, d_in = a_old.shape
    d_out = b_old.shape[1]

    def one(i: Array) -> tuple[Array, Array]:
        row = p[i]
        if models:
            coefficients, a, b = row, a_new, b_new
        else:
            # ΔW̄ᵢ + Σₖ pₖ B'ₖA'ₖ − Σₖ pₖ BₖAₖ as one sum of 2n + 1 products.
            coefficients = jnp.concatenate([row, -row, jnp.ones(1)])
            a = jnp.concatenate([a_new, a_old, a_old[i][None]])
            b = jnp.concatenate([b_new, b_old, b_old[i][None]])
        left = (b * coefficients[:, None, None]).transpose(1, 0, 2).reshape(d_out, -1)
        right = a.reshape(-1, d_in)
        if left.shape[1] < min(d_out, d_in):
            q_left, r_left = jnp.linalg.qr(left)
            q_right, r_right = jnp.linalg.qr(right.T)
            u, values, vt = jnp.linalg.svd(r_left @ r_right.T, full_matrices=False)
            u, vt = q_left @ u, vt @ q_right.T
        else:
            u, values, vt = jnp.linalg.svd(left @ right, full_matrices=False)
        root = jnp.sqrt(values[:r]) if balance else jnp.ones(r)
        share = root if balance else values[:r]
        return vt[:r] * root[:, None], u[:, :r] * share

    return jax.lax.map(one, jnp.arange(n))


def mean_product(round: Round) -> Float[Array, "residual"]:
    """Σₖ pₖ s BₖAₖ of every module with the first present client's weights, which are everyone's."""
    row = round.weights.mean(0)[jnp.argmax(round.mask)]
    parts = []
    for a, b in round.layout.pairs:
        factors = _after(round, b), _after(round, a)
        parts.append(jnp.einsum("k,kor,kri->oi", row, *factors, precision="highest").reshape(-1))
    return round.layout.scale * _joined(parts)


def own_product(round: Round, step: Float[Array, "clients params"]) -> Float[Array, "residual"]:
    """s B A of every module after a step, in the mean of the clients, who all hold the same."""
    mean = _mean(round.personal, step)
    parts = []
    for a, b in round.layout.pairs:
        factors_a, factors_b = _factors(mean, a, b)
        parts.append(jnp.matmul(factors_b[0], factors_a[0], precision="highest").reshape(-1))
    return round.layout.scale * _joined(parts)


def _joined(parts: list[Array]) -> Float[Array, "residual"]:
    return jnp.concatenate(parts) if parts else jnp.zeros(0)


@jax.jit
def _mean(
    personal: Float[Array, "clients params"], step: Float[Array, "clients params"]
) -> Float[Array, "1 params"]:
    return (personal + step).mean(0, keepdims=True)


def fresh_factors(round: Round, step: Float[Array, "clients params"]) -> Float[Array, "clients params"]:
    """Steps that put LoRA's factors back to θ₀, and the head's steps as they are."""
    for entry in round.layout.entries:
        if entry.kind != "head":
            part = slice(entry.start, entry.stop)
            fresh = round.reference[part] - round.personal[:, part]
            step = _put(step, jnp.asarray(entry.start), fresh)
    return step
