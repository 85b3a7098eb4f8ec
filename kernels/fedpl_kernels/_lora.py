"""Inner products of LoRA updates ΔW = s B A in product space, without ever forming a d_out x d_in matrix.

⟨B_i A_i, B_j A_j⟩ = tr((B_iᵀ B_j)(A_j A_iᵀ)) = Σ_pq (B_iᵀ B_j)_pq (A_i A_jᵀ)_pq: two Gram matrices of the
n·r factor rows, multiplied entry by entry and summed over r x r cells. O(n² r² (d_in + d_out)) operations,
and independent of the gauge (B R, R⁻¹ A). Source of the trace form: HetLoRA (EMNLP 2024) for norms.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from ._columns import platform_of
from ._gram import TILE, exclude, tile_edges
from ._precision import Precision, check_precision, contract


def lora_gram(
    a: Float[Array | np.ndarray, "n r d_in"],
    b: Float[Array | np.ndarray, "n d_out _"],
    scale: float | Float[Array | np.ndarray, " n"] = 1.0,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
) -> Float[Array, "n n"]:
    """G[i, j] = ⟨s_i B_i A_i, s_j B_j A_j⟩ for one adapted layer; sum over layers for a block or a model.

    Args:
        a: factors A. Clients of a lower rank: `pad_rank`. Task vectors: `lora_delta`.
        b: factors B.
        scale: α / r, one for all or one a client.
        mask: which clients are present; absent and non-finite ones get zero rows, as in `gram`.
        precision: as in `gram`.

    Raises:
        ValueError: unknown precision, or factors of different ranks.
    """
    check_precision(precision)
    if a.shape[1] != b.shape[2]:
        raise ValueError(f"expected A [n, r, d_in] and B [n, d_out, r] of one rank, got {a.shape}, {b.shape}")
    tile = max(TILE[platform_of(a)] // a.shape[1], 1)
    present = np.ones(a.shape[0], bool) if mask is None else mask
    return _factor_gram(
        a, b, np.float32(scale) if isinstance(scale, float) else scale, present, precision, tile
    )


@partial(jax.jit, static_argnames=("precision", "tile"))
def _factor_gram(
    a: Array, b: Array, scale: Array, mask: Array, precision: Precision, tile: int
) -> Float[Array, "n n"]:
    n, r = a.shape[:2]
    b = jnp.swapaxes(b, 1, 2)
    spans = list(pairwise(tile_edges(n, tile)))

    def cells(i: slice, j: slice) -> Array:
        """Products of the factor rows of two groups of clients, folded over their r x r cells."""

        def rows(x: Array, part: slice) -> Array:
            return x[part].reshape(-1, x.shape[2])

        inner = contract("id,jd->ij", rows(a, i), rows(a, j), precision)
        outer = contract("id,jd->ij", rows(b, i), rows(b, j), precision)
        # The barrier keeps the reduction out of the products: fused, they are several times slower on CPU.
        inner, outer = lax.optimization_barrier((inner, outer))
        return (inner * outer).reshape(i.stop - i.start, r, j.stop - j.start, r).sum((1, 3))

    whole = jnp.zeros((n, n), jnp.float32)
    for k, (start, stop) in enumerate(spans):
        for low, high in spans[: k + 1]:
            whole = whole.at[start:stop, low:high].set(cells(slice(start, stop), slice(low, high)))
    scales = jnp.broadcast_to(scale, (n,))
    scaled = (jnp.tril(whole) + jnp.tril(whole, -1).T) * scales[:, None] * scales[None, :]
    return exclude(scaled[None], mask)[0]


def lora_delta(
    a_before: Float[Array, "n r d_in"],
    b_before: Float[Array, "n d_out r"],
    a_after: Float[Array, "n r d_in"],
    b_after: Float[Array, "n d_out r"],
) -> tuple[Float[Array, "n r2 d_in"], Float[Array, "n d_out r2"]]:
    """A round's change B'A' - BA as a pair of factors of rank 2r, for `lora_gram`.

    Written as B'(A' - A) + (B' - B)A. The textbook pair [B', -B], [A'; A] is equal, but takes the difference
    of two large products in float32: for a small step it loses the digits this form keeps.
    """
    a = jnp.concatenate([a_after - a_before, a_before], axis=1)
    return a, jnp.concatenate([b_after, b_after - b_before], axis=2)


def pad_rank(
    factors: Sequence[Float[Array | np.ndarray, "_ _"]], axis: int, rank: int | None = None
) -> Float[Array, "n _ _"]:
    """Stacks factors of mixed ranks, the missing ranks filled with zeros: axis 0 for A, 1 for B.

    Raises:
        ValueError: a factor of a higher rank than `rank` (by default the highest there is).
    """
    ranks = [factor.shape[axis] for factor in factors]
    rank = max(ranks) if rank is None else rank
    if max(ranks) > rank:
        raise ValueError(f"rank: expected at least the highest rank {max(ranks)}, got {rank}")

    def widen(factor: Array) -> Array:
        missing = [(0, 0), (0, 0)]
        missing[axis] = (0, rank - factor.shape[axis])
        return jnp.pad(factor, missing)

    return jnp.stack([widen(jnp.asarray(factor)) for factor in factors])
