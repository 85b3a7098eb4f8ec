"""Gram and mix of task vectors on disk, by column panels: disk, transfer and arithmetic overlap.

Two passes over the store (the Gram first: P needs all of it), or one when every range of columns fits in
memory (`mix_per_block`). `memory_budget` bounds what is allocated beyond the interpreter itself, in bytes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ._columns import Boundaries, check_boundaries, default_block, platform_of
from ._gram import exclude, raw_gram, usable_rows
from ._mix import local_mix
from ._panels import Panel, PanelReader, RowReader, cut, numbers, panel_width, reading_width
from ._precision import Precision, check_precision
from ._rowfile import TYPES
from .store import VectorStore

DEFAULT_BUDGET = 1 << 30


class StreamedGram(NamedTuple):
    """`gram` [blocks, n, n]; `torn` rows (missing, cut short or damaged) are excluded from it, and named."""

    gram: Float[Array, "blocks n n"]
    torn: tuple[int, ...]


class TornRowError(ValueError):
    """A row that carries weight does not have its checksum; nothing was written."""


def gram(
    store: VectorStore,
    mask: Bool[np.ndarray, " n"] | None = None,
    *,
    boundaries: Boundaries | None = None,
    precision: Precision = "highest",
    memory_budget: int = DEFAULT_BUDGET,
) -> StreamedGram:
    """`fedpl_kernels.gram_blocks` of a store; one range over all columns when `boundaries` is None.

    Every row read is compared with its checksum on the way.

    Raises:
        ValueError: as `gram_blocks`; also a budget too small for a panel of 1,024 columns.
    """
    check_precision(precision)
    ranges = boundaries or ((0, store.d),)
    check_boundaries(ranges, store.d)
    width = min(reading_width(store, memory_budget), max(stop - start for start, stop in ranges))
    rows = np.ones(store.n, bool) if mask is None else np.asarray(mask)
    panels = cut(ranges, store.d, width)
    reader = PanelReader(store, rows, panels, width)
    totals = [jnp.zeros((store.n, store.n), jnp.float32) for _ in ranges]

    def work(panel: Panel, x: Array) -> Array | None:
        if panel.owner < 0:
            return None
        totals[panel.owner] = _add_gram(totals[panel.owner], x, precision)
        return totals[panel.owner]

    reader.each(work)
    torn = reader.torn()
    return StreamedGram(
        exclude(jnp.stack(totals), jnp.asarray(rows & ~np.isin(np.arange(store.n), torn))), torn
    )


def mix(
    weights: Float[Array | np.ndarray, "*blocks n n"],
    store: VectorStore,
    out: VectorStore,
    mask: Bool[np.ndarray, " n"] | None = None,
    *,
    base: VectorStore | None = None,
    boundaries: Boundaries | None = None,
    precision: Precision = "highest",
    memory_budget: int = DEFAULT_BUDGET,
) -> None:
    """`fedpl_kernels.mix_blocks` from store to store; `out` may be `base` or `store` itself.

    Rows without weight are not read. The rows of `out` are replaced at the end, each of them atomically.

    Raises:
        ValueError: as `mix_blocks`; stores of different shapes.
        TornRowError: a row with a weight, or of `base`, is damaged; `out` is as before.
    """
    ranges = boundaries or ((0, store.d),)
    p = np.asarray(weights, np.float32).reshape(len(ranges), store.n, store.n)
    used = (p != 0).any((0, 1)) & (True if mask is None else np.asarray(mask))
    width = _check(store, out, base, ranges, precision, memory_budget, reading_width)
    _write(lambda owner, x: jnp.asarray(p[owner] * used), store, out, used, base, ranges, precision, width)


def mix_per_block(
    weigh: Callable[[int, Float[Array, "n n"]], Float[Array, "n n"]],
    store: VectorStore,
    out: VectorStore,
    mask: Bool[np.ndarray, " n"] | None = None,
    *,
    boundaries: Boundaries,
    base: VectorStore | None = None,
    precision: Precision = "highest",
    memory_budget: int = DEFAULT_BUDGET,
) -> None:
    """FedBip-L in one pass: each range of columns is read, compared, weighted, mixed and written.

    Args:
        weigh: from the index of a range and its Gram matrix to its weights [n, n].
        store: as in `mix`, like `out`, `mask`, `base` and `precision`.
        boundaries: ranges of columns; columns in none of them are those of `base`, or 0.
        memory_budget: the widest range must fit as a panel.

    Raises:
        ValueError: as `mix`; also a range too wide for the budget (use `gram`, then `mix`).
        TornRowError: as `mix`, for any row within `mask`.
    """
    width = _check(store, out, base, boundaries, precision, memory_budget, panel_width)
    widest = max(stop - start for start, stop in boundaries)
    if widest > width:
        raise ValueError(
            f"boundaries: {width} columns fit memory_budget, a range has {widest}; use two passes"
        )
    rows = np.ones(store.n, bool) if mask is None else np.asarray(mask)

    def weights_of(owner: int, x: Array) -> Array:
        products = _add_gram(jnp.zeros((store.n, store.n)), x, precision)
        clean = exclude(products[None], jnp.asarray(rows))[0]
        return weigh(owner, clean) * usable_rows(clean)

    _write(weights_of, store, out, rows, base, boundaries, precision, width)


def _check(
    store: VectorStore,
    out: VectorStore,
    base: VectorStore | None,
    boundaries: Boundaries,
    precision: Precision,
    memory_budget: int,
    widest: Callable[[VectorStore, int, int], int],
) -> int:
    """The panel width for a mix, or a ValueError."""
    check_precision(precision)
    check_boundaries(boundaries, store.d)
    for other in (out, base):
        if other is not None and (other.n, other.d) != (store.n, store.d):
            raise ValueError(f"expected stores of {store.n} x {store.d}, got {other.n} x {other.d}")
    # Held at once: two panels read, and in float32 the product and its target.
    held = 2 + 2 * 4 // TYPES[store.dtype].itemsize
    return min(widest(store, memory_budget, held), max(stop - start for start, stop in boundaries))


def _write(
    weights_of: Callable[[int, Array], Array],
    store: VectorStore,
    out: VectorStore,
    rows: np.ndarray,
    base: VectorStore | None,
    boundaries: Boundaries,
    precision: Precision,
    width: int,
) -> None:
    panels = cut(boundaries, store.d, width)
    reader = PanelReader(store, rows, panels, width)
    under = None if base is None else RowReader(base, np.ones(base.n, bool))
    writers = [out.writer(row) for row in range(out.n)]

    def work(panel: Panel, x: Array) -> None:
        columns = panel.stop - panel.start
        new = np.zeros((store.n, columns), np.float32)
        if under is not None:
            new = under.read(panel.start, np.empty((store.n, columns), TYPES[under.dtype])).astype(np.float32)
        if panel.owner >= 0:
            new += np.asarray(_panel_mix(weights_of(panel.owner, x), x, precision))[:, :columns]
        for writer, values in zip(writers, new, strict=True):
            writer.append(values)

    try:
        reader.each(work)
        torn = {*reader.torn(), *(() if under is None else under.torn())}
        if torn:
            raise TornRowError(f"rows {sorted(torn)} are missing or damaged: write them again, or mask them")
        for writer in writers:
            writer.commit()
    finally:
        for writer in writers:
            writer.discard()


@partial(jax.jit, static_argnames="precision")
def _add_gram(total: Array, panel: Array, precision: Precision) -> Array:
    x, platform = numbers(panel), platform_of(panel)
    block = default_block(x.shape[0], platform)
    return total + raw_gram(x, precision, ((0, x.shape[1]),), block, platform)[0]


@partial(jax.jit, static_argnames="precision")
def _panel_mix(p: Array, panel: Array, precision: Precision) -> Array:
    x, platform = numbers(panel), platform_of(panel)
    block = default_block(x.shape[0], platform)
    return local_mix(None, p[None].astype(jnp.float32), x, precision, ((0, x.shape[1]),), block)
