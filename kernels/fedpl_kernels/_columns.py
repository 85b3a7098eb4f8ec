"""How columns are walked: full windows of one width, and what is left of each range, equal widths together.

`cover` computes nothing that is not asked for. Where only the device knows its ranges (`shares`), or they
have too many different widths for a program each, windows of one width serve all: one may reach beyond its
range then, and `low` and `high` tell which of its columns count.
"""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int

Boundaries = tuple[tuple[int, int], ...]

# Elements of X a step works on, measured. CPU: 4 MiB stay in the last-level cache between the copy out of
# X and its use (n = 512: 2,048 columns). GPU, by arithmetic, not measured: a step of 8,192 rows
# is about 2 ms of bf16 products on an H200, beside which a launch and reading the totals are little; what is
# allocated beyond X is a multiple of it.
_STEP_ELEMENTS = {"cpu": 1 << 20, "gpu": 1 << 27}
_NARROWEST = {"cpu": 1024, "gpu": 8192}
_WIDEST = {"cpu": 1 << 16, "gpu": 1 << 22}
# Every width of a window is a loop of its own in the program: blocks of a model are mostly alike.
_MOST_WIDTHS = 12
# Where results are written too, few rows' windows: they, and what is added to them, stay in a CPU's cache.
_FEW_ROWS = 16
_FEW_ELEMENTS = 1 << 16
_MULTIPLE = 16  # of a window's width: whole vector registers


class Walk(NamedTuple):
    """Windows as a traced loop takes them: the first `steps`; `cut` when not all of them are full."""

    width: int
    cut: bool
    steps: int | Int[Array, ""]
    start: Int[Array, " windows"]
    low: Int[Array, " windows"]
    high: Int[Array, " windows"]
    owner: Int[Array, " windows"]


class Windows(NamedTuple):
    """`start` of each window, its counting columns `low` <= column < `high`, and the index of its range."""

    width: int
    start: Int[np.ndarray, " windows"]
    low: Int[np.ndarray, " windows"]
    high: Int[np.ndarray, " windows"]
    owner: Int[np.ndarray, " windows"]

    @property
    def full(self) -> Bool[np.ndarray, " windows"]:
        """Windows all of whose columns count."""
        return (self.low == self.start) & (self.high == self.start + self.width)

    def only(self, chosen: Bool[np.ndarray, " windows"]) -> "Windows":
        """The chosen windows."""
        return Windows(self.width, *(part[chosen] for part in self[1:]))

    def walk(self) -> Walk:
        """The loop over all of them."""
        arrays = (jnp.asarray(part) for part in self[1:])
        return Walk(self.width, not self.full.all(), len(self.start), *arrays)


def is_one(steps: int | Int[Array, ""]) -> bool:
    """Whether a walk is known to have one window."""
    return isinstance(steps, int) and steps == 1


def platform_of(x: object) -> str:
    """ "cpu" or "gpu": where an array lives; inside a trace or for host memory, where JAX would put it."""
    if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer):
        name = next(iter(x.devices())).platform
    else:
        name = jax.default_backend()
    return "cpu" if name == "cpu" else "gpu"


def on_device(x: Array | np.ndarray) -> Array:
    """Where JAX takes it. `jnp.asarray` of what is there already costs as much as a small product."""
    return x if isinstance(x, jax.Array) else jnp.asarray(x)


@cache
def all_present(n: int) -> Bool[Array, " n"]:
    """A mask that leaves nobody out. Kept: a mask from the host would take as long as a small product."""
    with jax.ensure_compile_time_eval():
        return jnp.ones(n, bool)


def default_block(n: int, platform: str) -> int:
    """Columns of a step for n rows: a power of two."""
    fit = max(1, _STEP_ELEMENTS[platform] // max(n, 1))
    return min(max(1 << (fit.bit_length() - 1), _NARROWEST[platform]), _WIDEST[platform])


def mix_block(rows: int, platform: str) -> int:
    """Columns of a step. One window of few rows would hold a result as large as the whole of X beside it: on
    a CPU, 4 to 12 rows of 75,000 columns take 1.5 to 4 times as long in one as in windows of 256 KiB."""
    block = default_block(rows, platform)
    few = platform == "cpu" and rows <= _FEW_ROWS
    return min(block, 1 << (_FEW_ELEMENTS // max(rows, 1)).bit_length() - 1) if few else block


def window(
    x: Float[Array, "n d"], row: int, column: int | Int[Array, ""], shape: tuple[int, int]
) -> Float[Array, "rows columns"]:
    """The part of X that begins there.

    bfloat16 is cut out as 16-bit integers: XLA's programs for a CPU would turn the whole of X into float32
    before their loop (512 x 200,000: 410 MB, and a Gram of twice the time). The barrier keeps them from
    copying the integers there instead.
    """
    if x.dtype != jnp.bfloat16:
        return lax.dynamic_slice(x, (row, column), shape)
    x, column = lax.optimization_barrier((x, column))
    bits = lax.bitcast_convert_type(x, jnp.uint16)
    return lax.bitcast_convert_type(lax.dynamic_slice(bits, (row, column), shape), jnp.bfloat16)


def windows(boundaries: Boundaries, width: int, block: int) -> Windows:
    """Covers every range [start, stop) of a matrix of `width` columns by windows of min(block, width).

    A range without columns has no window.
    """
    block = min(block, width)
    rows = [
        (min(low, width - block), low, min(low + block, stop), owner)
        for owner, (start, stop) in enumerate(boundaries)
        for low in range(start, stop, block)
    ]
    return Windows(block, *np.array(rows, np.int32).reshape(-1, 4).T)


def cover(boundaries: Boundaries, width: int, block: int) -> list[Walk]:
    """Walks over every range [start, stop) of a matrix of `width` columns, and over nothing else.

    Full windows of `block` columns first, then what is left of each range, from half to one and a half as
    wide where it has so many, equal widths together. With more than `_MOST_WIDTHS` widths the rarest are
    walked in windows that are cut.
    """
    whole: list[tuple[int, int]] = []
    rests: dict[int, list[tuple[int, int]]] = {}
    for owner, (start, stop) in enumerate(boundaries):
        full = max((stop - start + block // 2) // block - 1, 0)
        whole += [(start + i * block, owner) for i in range(full)]
        rest = stop - start - full * block
        rests.setdefault(rest, []).append((stop - rest, owner))
    common = sorted(rests, key=lambda size: -len(rests[size]))[:_MOST_WIDTHS]
    walks = [_full_walk(block, whole)] if whole else []
    walks += [_full_walk(size, rests.pop(size)) for size in sorted(common)]
    if rests:
        rows = [
            (min(start, width - max(rests)), start, start + size, owner)
            for size, places in rests.items()
            for start, owner in places
        ]
        walks.append(Windows(max(rests), *np.array(sorted(rows), np.int32).T).walk())
    return walks


def cover_at_once(boundaries: Boundaries, width: int, block: int) -> list[Walk]:
    """As `cover` where every range is one window; else one walk, in windows that divide the widest range.

    For results that are written into one target: a second walk over it makes XLA write far more than its
    windows (12 million columns of 4 rows: 600 ms instead of 23), and a cut window is little among many.
    """
    widest = max(stop - start for start, stop in boundaries)
    if 2 * widest <= 3 * block:
        return cover(boundaries, width, block)
    fitting = -(-widest // -(-widest // block))
    return [windows(boundaries, width, min(-(-fitting // _MULTIPLE) * _MULTIPLE, width)).walk()]


def covered(boundaries: Boundaries, width: int) -> bool:
    """Whether ranges that do not overlap leave no column."""
    return sum(stop - start for start, stop in boundaries) == width


def _full_walk(size: int, places: list[tuple[int, int]]) -> Walk:
    """Windows of `size` columns, all of which count, from (start, owner)."""
    start, owner = np.array(sorted(places), np.int32).T
    return Windows(size, start, start, start + size, owner).walk()


def shares(boundaries: Boundaries, width: int, devices: int, block: int) -> list[Windows]:
    """`windows` of each device, counted in its own columns: `width` a device, from left to right."""
    ranges = np.array(boundaries)
    cut = [np.clip(ranges - width * device, 0, width).tolist() for device in range(devices)]
    return [windows(tuple(map(tuple, own)), width, block) for own in cut]


def walk_of(device: Int[Array, ""], plans: list[Windows]) -> Walk:
    """The walk of one device, in a program that all of them run."""
    counts = [len(plan.start) for plan in plans]
    table = np.zeros((len(plans), 4, max(*counts, 1)), np.int32)
    for row, plan, count in zip(table, plans, counts, strict=True):
        row[:, :count] = plan[1:]
    cut = not all(plan.full.all() for plan in plans)
    return Walk(plans[0].width, cut, jnp.asarray(counts)[device], *jnp.asarray(table)[device])


def check_block(block: int | None) -> None:
    """Raises ValueError for a block without a column."""
    if block is not None and block < 1:
        raise ValueError(f"block: expected at least 1 column, got {block}; leave it out for the default")


def check_boundaries(boundaries: Boundaries, width: int) -> None:
    """Raises ValueError unless every column range is non-empty and lies within `width` columns."""
    bad = [pair for pair in boundaries if not 0 <= pair[0] < pair[1] <= width]
    if bad or not boundaries:
        raise ValueError(f"boundaries: expected ranges 0 <= start < stop <= {width}, got {bad or 'none'}")
