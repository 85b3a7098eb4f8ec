"""Products of few rows in host memory, by BLAS on the memory of JAX's own arrays.

For few clients a program of XLA's takes 1.2 to 7 times as long on a CPU (4 to 64 rows of 75,000 columns, two
threads): it wakes threads for what one does sooner, and a call costs as much as the products. From 128 rows
on it is the faster one, but for torch's BLAS on a Xeon with AVX-512 (128 to 2,048 rows: 1.1 to 1.7 times as
long as that), and nothing of this is used; nor inside of a trace, on a GPU, or across devices.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from . import _blas
from ._columns import Boundaries, covered, on_device
from ._precision import Precision

_ROWS = {False: 127, True: 2048}  # at most; more were not measured
_PAIRS = 2048**2  # at most, of all ranges together: their products are held three times for a moment
# Columns of a step: what is read and written stays in the second-level cache, and errors of chains of
# additions average out over the steps.
_COLUMNS = 16384


def serves(rows: int, precision: Precision, *arrays: Array | np.ndarray | None, ranges: int = 1) -> bool:
    """Whether these are few rows of arrays in host memory, to be multiplied exactly.

    Args:
        rows: How many.
        precision: As of `gram`.
        arrays: All that are given.
        ranges: Of columns, each of which has a matrix of all pairs to itself.
    """
    few = rows <= _ROWS[_blas.wide()] and ranges * rows**2 <= _PAIRS
    return few and precision == "highest" and all(map(_in_host_memory, arrays))


def _in_host_memory(x: Array | np.ndarray | None) -> bool:
    if isinstance(x, jax.core.Tracer):
        return False
    if isinstance(x, jax.Array):
        devices = x.devices()
        return len(devices) == 1 and next(iter(devices)).platform == "cpu"
    return x is None or jax.default_backend() == "cpu"


def products(
    x: Float[Array | np.ndarray, "n d"], boundaries: Boundaries, block: int | None
) -> Float[np.ndarray, "blocks n n"]:
    """Inner products of all pairs of rows in each range of columns, exactly symmetric."""
    host, n = np.asarray(x), x.shape[0]
    total = np.zeros((len(boundaries), n, n), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for owner, columns in _steps(boundaries, block or 2 * _COLUMNS):
            _blas.add_square(total[owner], _numbers(host[:, columns]))
    return np.maximum(total, total.swapaxes(-1, -2))  # whose rounding may differ; NaN stays


def exclude(
    products: Float[np.ndarray, "blocks n n"], mask: Bool[Array | np.ndarray, " n"] | None
) -> Float[np.ndarray, "blocks n n"]:
    """As `_gram.exclude`."""
    usable = np.isfinite(np.diagonal(products, axis1=-2, axis2=-1)).all(0)
    if mask is not None:
        usable &= np.asarray(mask)
    return products if usable.all() else np.where(usable[:, None] & usable, products, np.float32(0))


def mixed(
    weights: Float[Array | np.ndarray, "*blocks m n"],
    x: Float[Array | np.ndarray, "n d"],
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None,
    base: Float[Array, "m d"] | None,
    block: int | None,
    out: Float[np.ndarray, "m d"] | None,
    donate: bool,
    finite: bool,
) -> Float[Array | np.ndarray, "m d"]:
    """`mix_blocks`, once its arguments have been checked."""
    if out is not None:
        fill(out, weights, mask, np.asarray(x), boundaries, block, add=False, finite=finite)
        return out
    if donate or base is not None:
        result = taken(on_device(x) if donate else base)
    else:
        result = place((weights.shape[-2], x.shape[1]), zero=not covered(boundaries, x.shape[1]))
    own = writable(result)
    source = own if donate else np.asarray(x)
    fill(own, weights, mask, source, boundaries, block, add=base is not None, finite=finite)
    return result


def fill(
    target: Float[np.ndarray, "m d"],
    weights: Float[Array | np.ndarray, "*blocks m n"],
    mask: Bool[Array | np.ndarray, " n"] | None,
    x: Float[np.ndarray, "n d"],
    boundaries: Boundaries,
    block: int | None,
    add: bool,
    finite: bool = False,
) -> None:
    """Writes P X into the columns of every range of `target`, which may be `x` itself, or adds it there."""
    p = np.asarray(weights, np.float32).reshape(-1, *weights.shape[-2:])
    if mask is not None:
        p = np.where(np.asarray(mask), p, np.float32(0))
    room = np.empty((p.shape[1], 0), np.float32)
    library = _blas.torch() if _blas.takes(target) and not np.may_share_memory(target, x) else None
    at_once = finite and library is not None and x.dtype == np.float32
    with np.errstate(invalid="ignore", over="ignore"):
        for owner, columns in _steps(boundaries, block or (x.shape[1] if at_once else _COLUMNS)):
            part, place = _numbers(x[:, columns]), target[:, columns]
            if library is not None and (finite or _blas.finite(library, part)):
                _blas.add_product(library, place, p[owner], part, whole=not add)
                continue
            if room.shape[1] < part.shape[1]:
                room = np.empty(place.shape, np.float32)
            new = _product(p[owner], part, room[:, : part.shape[1]])
            if add:
                place += new
            else:
                place[:] = new


def _product(
    p: Float[np.ndarray, "m n"], columns: Float[np.ndarray, "n c"], room: Float[np.ndarray, "m c"]
) -> Float[np.ndarray, "m c"]:
    """As `_mix.product`: one row of the plain product is a witness of numbers that are not finite."""
    plain = np.matmul(p, columns, out=room)
    if np.isfinite(plain[0]).all():
        return plain
    finite = np.isfinite(columns)
    clean = p @ np.where(finite, columns, np.float32(0))
    touched = (p != 0).astype(np.float32) @ (~finite).astype(np.float32)
    return np.where(touched > 0, np.float32(np.nan), clean)


def _steps(boundaries: Boundaries, width: int) -> Iterator[tuple[int, slice]]:
    for owner, (start, stop) in enumerate(boundaries):
        for low in range(start, stop, width):
            yield owner, slice(low, min(low + width, stop))


def _numbers(part: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """In float32. A bfloat16 is the upper half of one: shifting is several times faster than `astype`."""
    if part.dtype != ml_dtypes.bfloat16:
        return part.astype(np.float32, copy=False)
    bits = part.view(np.uint16).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)


@partial(jax.jit, donate_argnums=0)
def taken(array: Float[Array, "m d"]) -> Float[Array, "m d"]:
    """The numbers of an array that is deleted, in memory that nobody else has: its own where that is so."""
    return lax.optimization_barrier(array)


@partial(jax.jit, static_argnames=("shape", "zero"))
def place(shape: tuple[int, ...], zero: bool) -> Float[Array, "*shape"]:
    """An array to be written."""
    return (jnp.zeros if zero else lax.empty)(shape, jnp.float32)


def lent(numbers: Float[np.ndarray, "*shape"]) -> Float[Array, "*shape"]:
    """The same numbers as JAX's, in half the time of `jnp.asarray`."""
    result = place(numbers.shape, zero=False)
    writable(result)[:] = numbers
    return result


def writable(array: Float[Array, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """The memory of an array that nobody else has, of `taken` or `place`, to write to."""
    view = np.asarray(jax.block_until_ready(array))
    return np.asarray(_blas.Memory(view, array.unsafe_buffer_pointer()))
