"""Column panels of a store, read ahead on a thread while the one before is being worked on."""

import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ._columns import Boundaries
from ._rowfile import TYPES
from .store import VectorStore

# What the kernels use beyond the panels: tiles, windows, and a few n x n matrices.
_SLACK_BYTES = 48 << 20
_SQUARES = 6
_ALIGN = 64
# What is read at once, where the budget allows more: the machine's caches still help, little fresh memory has
# to be mapped, and opening a row's file costs little against reading its piece.
_PANEL_BYTES = 128 << 20
_LEAST_PIECE = 8192
# One reader slows one of the cores that multiply, and the others wait for it. The Gram matrix of
# 1,000 x 1,000,000 float32 in the page cache, 2 cores: 5.6 s with one, 4.9 s with two.
_READERS = 2


class Panel(NamedTuple):
    """Columns [start, stop) that belong to a range; `owner` is -1 for columns that belong to none."""

    start: int
    stop: int
    owner: int


def panel_width(store: VectorStore, memory_budget: int, panels_held: int = 2) -> int:
    """Columns that fit: `panels_held` panels beside the fixed needs, in `memory_budget` bytes.

    Raises:
        ValueError: not even 1,024 columns (or the whole row) fit.
    """
    fixed = _SLACK_BYTES + _SQUARES * 4 * store.n**2
    column = panels_held * store.n * TYPES[store.dtype].itemsize
    width = min((memory_budget - fixed) // column, store.d)
    least = min(1024, store.d)
    if width < least:
        needed = fixed + least * column
        raise ValueError(
            f"memory_budget: expected at least {needed} bytes for {store.n} rows, got {memory_budget}"
        )
    return width


def reading_width(store: VectorStore, memory_budget: int, panels_held: int = 2) -> int:
    """Columns to read at once when any number will do: a power of two, or whole rows.

    Measured, the Gram matrix of 1,000 x 1,000,000 float32 in the page cache with one reader: 5.7 s with
    32,768 columns, 6.2 s with the 74,594 that filled 640 MiB.

    Raises:
        ValueError: as `panel_width`.
    """
    fit = panel_width(store, memory_budget, panels_held)
    enough = _PANEL_BYTES // (store.n * TYPES[store.dtype].itemsize)
    width = min(fit, max(enough, _LEAST_PIECE))
    return store.d if width >= store.d else 1 << (width.bit_length() - 1)


def cut(boundaries: Boundaries, d: int, width: int) -> list[Panel]:
    """All columns from left to right in panels of at most `width`, none across the edge of a range."""
    panels, at = [], 0
    ranges = sorted((start, stop, owner) for owner, (start, stop) in enumerate(boundaries))
    for start, stop, owner in [*ranges, (d, d, -1)]:
        for low, high, who in ((at, start, -1), (start, stop, owner)):
            panels += [Panel(k, min(k + width, high), who) for k in range(low, high, width)]
        at = stop
    return panels


class RowReader:
    """Reads the columns of some rows from left to right, and keeps the checksum of every row."""

    def __init__(self, store: VectorStore, rows: np.ndarray) -> None:
        self._store, self.dtype = store, store.dtype
        self._expected = {int(row): store.checksum(int(row)) for row in np.flatnonzero(rows)}
        self._found = {row: 0 for row, checksum in self._expected.items() if checksum is not None}

    def read(self, start: int, target: np.ndarray) -> np.ndarray:
        """Fills the rows of `target` [n, columns] that are read; the others stay as they are."""

        def fill(rows: list[int]) -> None:
            for row in rows:
                self._store.read_into(row, start, target[row])
                self._found[row] = zlib.crc32(target[row].view(np.uint8).data, self._found[row])

        rows = list(self._found)
        with ThreadPoolExecutor(_READERS) as threads:
            for done in [threads.submit(fill, rows[k::_READERS]) for k in range(_READERS)]:
                done.result()
        return target

    def torn(self) -> tuple[int, ...]:
        """Rows whose numbers do not have the checksum of their file; known when all columns were read."""
        claims = self._expected.items()
        return tuple(row for row, checksum in claims if checksum is None or self._found[row] != checksum)


class PanelReader:
    """Reads panels of some rows in order into two buffers, the next one while a caller works on this one.

    On a CPU the buffers are lent to JAX without a copy, so one may be refilled only when the work on it is
    done: `each` waits for what its caller's function returned.
    """

    def __init__(self, store: VectorStore, rows: np.ndarray, panels: list[Panel], width: int) -> None:
        self._rows, self._panels = RowReader(store, rows), panels
        raw = np.uint16 if store.dtype == "bfloat16" else np.float32
        self._buffers = [_aligned((store.n, width), raw) for _ in range(2)]
        self._lent: list[Array] = []
        if jax.default_backend() == "cpu":
            self._lent = [jax.dlpack.from_dlpack(buffer, copy=False) for buffer in self._buffers]
        self.torn = self._rows.torn

    def each(self, work: Callable[[Panel, Array], Array | None]) -> None:
        """Calls `work(panel, x [n, width])` for every panel; columns beyond the panel are zero."""
        with ThreadPoolExecutor(1) as thread:
            pending: list[Array | None] = [None, None]
            reading = thread.submit(self._fill, 0, self._panels[0])
            for k, panel in enumerate(self._panels):
                reading.result()
                if k + 1 < len(self._panels):
                    jax.block_until_ready(pending[(k + 1) % 2])
                    reading = thread.submit(self._fill, (k + 1) % 2, self._panels[k + 1])
                pending[k % 2] = work(panel, self._on_device(k % 2))
            jax.block_until_ready(pending)

    def _on_device(self, which: int) -> Array:
        return self._lent[which] if self._lent else jax.device_put(self._buffers[which])

    def _fill(self, which: int, panel: Panel) -> None:
        size = panel.stop - panel.start
        self._buffers[which][:, size:] = 0
        self._rows.read(panel.start, self._buffers[which][:, :size])


def numbers(panel: Array) -> Array:
    """The task vectors of a panel: 16-bit buffers are bfloat16 (NumPy cannot lend that type)."""
    return lax.bitcast_convert_type(panel, jnp.bfloat16) if panel.dtype == jnp.uint16 else panel


def _aligned(shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Zeros at an address that JAX takes without a copy."""
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGN, np.uint8)
    offset = -raw.ctypes.data % _ALIGN
    return raw[offset : offset + size].view(dtype).reshape(shape)
