"""Pairwise inner products of task vectors: G = X Xᵀ, whole or per column range, with half the products.

Source: the similarity of FedBip and FedBip-L (arXiv 2509.12697) starts from these products.

How the half is won (512 x 200,000 float32, 2 CPU cores, against one plain product: 2.0x): the rows are cut
into tiles, only the tiles on and below the diagonal are multiplied, and each tile of a column window is
copied out of X once. Reductions of G stay out of this jit: fused into a product they cost 1.4-3x on CPU.
Fewer products in smaller pieces gain nothing there: halving down to 64 rows multiplies 56 % of the pairs
instead of 62 %, and takes as long (207-210 against 201-221 ms); strips of 64 rows take 1.4 times as long.

How exact (d = 10,485,760, 4 rows, windows of 65,536 columns, against float64, largest error relative to
the norms): 4e-7 for unrelated rows, 2e-7 for cosines of 0.99, 3e-7 for positive entries; one plain product
in NumPy 2e-6, 7e-6 and 7e-6. Adding the windows with compensation (two-sum) would give 4e-8 to 7e-8, for a
second set of totals read and written with every window, which for many clients costs what was not measured.
"""

from functools import partial, reduce
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from . import _host
from ._columns import (
    Boundaries,
    Walk,
    all_present,
    check_block,
    check_boundaries,
    cover,
    default_block,
    is_one,
    on_device,
    platform_of,
    window,
)
from ._precision import Precision, check_precision, contract

# Rows of a tile. Below 128 (CPU) a product is too small for its threads; more than 8 tile rows gain little
# (56 % of the work against 50 %) and the program grows with their square. GPU, by arithmetic, not measured:
# cut into pieces of 128 x 256, a product of 2,048² keeps 128 of 132 multiprocessors (H100, H200) busy, one of
# 1,024² only 32: for 8,192 rows 10 waves against 36, and 16 for the whole product.
TILE = {"cpu": 128, "gpu": 2048}
_TILE_ROWS = 8
_TILE_MULTIPLE = 16

# Columns that a CPU may add up in one chain, in windows too narrow to have many chains whose errors average
# out. XLA's products cut columns by 2,048, and with AVX2 an entry is one chain of so many rounded additions
# (with AVX-512 four, of every fourth column): a squared norm is off by 6e-7 (one standard deviation), the
# worst of 300 by 1.6e-6. A chain of L columns errs by 1.4e-8 √L, k chains of them by 1.4e-8 √(L / k).
_CHAIN = 512
_FEW_CHAINS = 12288


def gram(
    x: Float[Array | np.ndarray, "n d"],
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
    block: int | None = None,
) -> Float[Array, "n n"]:
    """Inner products of all pairs of rows, G[i, j] = ⟨x_i, x_j⟩, in float32.

    Args:
        x: task vectors, one row a client; float32 or bfloat16.
        mask: which clients are present; all of them when None.
        precision: "highest", "tf32" or "bf16"; accumulation is always float32.
        block: columns worked on at a time; None takes the measured default.

    Returns:
        An exactly symmetric matrix in the squared unit of `x`. Rows and columns of absent clients are zero,
        and so are those of clients whose squared norm is not finite (a NaN or infinity in the row, or
        overflow): `usable_rows` tells which are left.

    Raises:
        ValueError: unknown precision, or a block below 1.
    """
    if _host.serves(x.shape[0], precision, x, mask):
        return _host.lent(_by_host(x, ((0, x.shape[1]),), mask, block)[0])
    return _exclude_of_one(*_products(x, ((0, x.shape[1]),), mask, precision, block))


def gram_blocks(
    x: Float[Array | np.ndarray, "n d"],
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
    block: int | None = None,
) -> Float[Array, "blocks n n"]:
    """`gram` of each range of columns [start, stop), in one pass over `x` (FedBip-L).

    A client whose row is not finite in any of the ranges is excluded from all of them.

    Raises:
        ValueError: as `gram`; also a range that is empty, reversed or outside of the columns.
    """
    if _host.serves(x.shape[0], precision, x, mask, ranges=len(boundaries)):
        return _host.lent(_by_host(x, boundaries, mask, block))
    return exclude(*_products(x, boundaries, mask, precision, block))


def _by_host(
    x: Array | np.ndarray, boundaries: Boundaries, mask: Array | np.ndarray | None, block: int | None
) -> Float[np.ndarray, "blocks n n"]:
    check_block(block)
    check_boundaries(boundaries, x.shape[1])
    return _host.exclude(_host.products(x, boundaries, block), mask)


def _products(
    x: Array | np.ndarray,
    boundaries: Boundaries,
    mask: Array | np.ndarray | None,
    precision: Precision,
    block: int | None,
) -> tuple[Array, Array | np.ndarray]:
    """Products without exclusions, and who is present."""
    check_precision(precision)
    check_block(block)
    check_boundaries(boundaries, x.shape[1])
    platform = platform_of(x)
    block = block or default_block(x.shape[0], platform)
    raw = raw_gram(on_device(x), precision, boundaries, block, platform)
    return raw, all_present(x.shape[0]) if mask is None else mask


def usable_rows(
    gram: Float[Array | np.ndarray, "*blocks n n"], mask: Bool[Array | np.ndarray, " n"] | None = None
) -> Bool[Array, "*blocks n"]:
    """Clients that can be compared: present, finite and not zero (LoRA starts with B = 0)."""
    diagonal = jnp.diagonal(jnp.asarray(gram), axis1=-2, axis2=-1)
    usable = jnp.isfinite(diagonal) & (diagonal >= jnp.finfo(jnp.float32).tiny)
    return usable if mask is None else usable & jnp.asarray(mask)


@jax.jit
def exclude(
    products: Float[Array, "blocks n n"], mask: Bool[Array | np.ndarray, " n"]
) -> Float[Array, "blocks n n"]:
    """Zeroes the rows and columns of absent and of non-finite clients.

    A non-finite entry of a row reaches that row and column of the Gram matrix only, and always its
    diagonal: so the test costs O(n), and no pass over X.
    """
    finite = jnp.isfinite(jnp.diagonal(products, axis1=-2, axis2=-1)).all(0) & mask
    return jnp.where(finite[:, None] & finite[None, :], products, 0.0)


@jax.jit
def _exclude_of_one(
    products: Float[Array, "1 n n"], mask: Bool[Array | np.ndarray, " n"]
) -> Float[Array, "n n"]:
    """`exclude` of one group: to index its result would take longer than to compute it."""
    return exclude(products, mask)[0]


def tile_edges(n: int, tile: int) -> list[int]:
    """Row numbers at which tiles start, and n: equal tiles of a SIMD-friendly size, the last one smaller."""
    count = min(max(round(n / tile), 1), _TILE_ROWS)
    size = -(-n // count)
    size = -(-size // _TILE_MULTIPLE) * _TILE_MULTIPLE if count > 1 else n
    return [*range(0, n, size), n]


def _product(left: Array, right: Array, precision: Precision, platform: str) -> Array:
    """left rightᵀ of two tiles of a window; slice by slice where one chain of additions would be too long."""
    width = left.shape[1]
    sliced = platform == "cpu" and width <= _FEW_CHAINS
    cuts = range(0, width, _CHAIN if sliced else width)
    slices = ((left[:, at : at + cuts.step], right[:, at : at + cuts.step]) for at in cuts)
    return reduce(jnp.add, (contract("ic,jc->ij", *pair, precision) for pair in slices))


@partial(jax.jit, static_argnames=("precision", "boundaries", "block", "platform"))
def raw_gram(
    x: Float[Array, "n d"], precision: Precision, boundaries: Boundaries, block: int, platform: str
) -> Float[Array, "blocks n n"]:
    """The products without exclusions: tiles on and below the diagonal, mirrored at the end."""
    walks = cover(boundaries, x.shape[1], block)
    return tiled_gram(x, walks, len(boundaries), precision, platform)


def tiled_gram(
    x: Float[Array, "n d"], walks: list[Walk], blocks: int, precision: Precision, platform: str
) -> Float[Array, "blocks n n"]:
    """The traced body of `raw_gram`, for windows that are known, or known to the device only."""
    n = x.shape[0]
    edges = tile_edges(n, TILE[platform])
    spans = list(pairwise(edges))
    pairs = [(i, j) for i in range(len(spans)) for j in range(i + 1)]

    def add(walk: Walk, totals: list[Array]) -> list[Array]:
        width, cut, steps, start, low, high, owner = walk

        def step(k: Array | int, totals: list[Array]) -> list[Array]:
            tiles = [window(x, a, start[k], (b - a, width)) for a, b in spans]
            if cut:
                column = start[k] + jnp.arange(width)
                counts = (low[k] <= column) & (column < high[k])
                tiles = [jnp.where(counts, tile, 0) for tile in tiles]
            products = [_product(tiles[i], tiles[j], precision, platform) for i, j in pairs]
            return [total.at[owner[k]].add(new) for total, new in zip(totals, products, strict=True)]

        # A loop of one turn would copy its window first.
        return step(0, totals) if is_one(steps) else lax.fori_loop(0, steps, step, totals)

    sizes = [b - a for a, b in spans]
    totals = [jnp.zeros((blocks, sizes[i], sizes[j]), jnp.float32) for i, j in pairs]
    for walk in walks:
        totals = add(walk, totals)
    whole = jnp.zeros((blocks, n, n), jnp.float32)
    for (i, j), total in zip(pairs, totals, strict=True):
        whole = whole.at[:, spans[i][0] : spans[i][1], spans[j][0] : spans[j][1]].set(total)
    lower = jnp.tril(whole)
    return lower + jnp.swapaxes(jnp.tril(whole, -1), -1, -2)
