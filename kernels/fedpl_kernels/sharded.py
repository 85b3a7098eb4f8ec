"""Gram and mix over a device mesh, in one process or several: columns are sharded, rows stay whole.

G needs one n x n all-reduce and P X needs no communication at all. Task vectors born as rows on different
processes are turned into columns by one all-to-all; no host ever holds the matrix.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as Spec
from jaxtyping import Bool, Float

from ._columns import Boundaries, check_boundaries, default_block, shares, walk_of
from ._gram import exclude, tiled_gram
from ._mix import check_targets, walked_mix
from ._precision import Precision, check_precision


def column_mesh(axis: str = "d") -> Mesh:
    """All devices of all processes in a line."""
    return Mesh(np.array(jax.devices()), (axis,))


def by_columns(x: Float[Array | np.ndarray, "n d"], mesh: Mesh) -> Float[Array, "n padded"]:
    """`x` sharded by columns, zero columns added until the devices share them evenly.

    `x` may be a global array sharded by rows (then each device keeps its columns of its own rows and sends
    the others where they belong: one all-to-all), or a local array that every process has.
    """
    axis = mesh.axis_names[0]
    missing = -x.shape[1] % mesh.size
    return _resharded(mesh, axis, missing)(x)


@lru_cache
def _resharded(mesh: Mesh, axis: str, missing: int):  # type: ignore[no-untyped-def]
    def pad(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, missing)))

    return jax.jit(pad, out_shardings=NamedSharding(mesh, Spec(None, axis)))


def from_rows(rows: Float[np.ndarray, "local d"], mesh: Mesh) -> Float[Array, "n d"]:
    """The global array whose rows are those of all processes, in order; every process has equally many.

    Rows of one process are cut by the columns of its own devices, so nothing is sent yet.

    Raises:
        ValueError: rows that the devices of a process cannot share evenly.
    """
    axis = mesh.axis_names[0]
    here = len(mesh.local_devices)
    if rows.shape[0] % here:
        raise ValueError(
            f"rows: expected a multiple of the {here} local devices, got {rows.shape[0]}; add absent rows of "
            "zeros and mask them"
        )
    sharding = NamedSharding(mesh, Spec(axis, None))
    shape = (rows.shape[0] // here * mesh.size, rows.shape[1])
    return jax.make_array_from_process_local_data(sharding, rows, shape)


def gram(
    x: Float[Array, "n d"],
    mesh: Mesh,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
) -> Float[Array, "n n"]:
    """`fedpl_kernels.gram` of an `x` sharded by columns (see `by_columns`); every device has the result."""
    return gram_blocks(x, mesh, ((0, x.shape[1]),), mask, precision=precision)[0]


def gram_blocks(
    x: Float[Array, "n d"],
    mesh: Mesh,
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    precision: Precision = "highest",
) -> Float[Array, "blocks n n"]:
    """`fedpl_kernels.gram_blocks` of an `x` sharded by columns: one pass and one all-reduce for all ranges.

    A range may lie on one device or on several; the devices' work is even when the ranges cover the columns.

    Raises:
        ValueError: as `fedpl_kernels.gram_blocks`.
    """
    check_precision(precision)
    check_boundaries(boundaries, x.shape[1])
    present = np.ones(x.shape[0], bool) if mask is None else mask
    return _gram(mesh, mesh.axis_names[0], precision, boundaries)(x, present)


@lru_cache
def _gram(mesh: Mesh, axis: str, precision: Precision, boundaries: Boundaries):  # type: ignore[no-untyped-def]
    platform = "cpu" if mesh.devices.flat[0].platform == "cpu" else "gpu"

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(Spec(None, axis), Spec()), out_specs=Spec(), check_vma=False)
    def run(x: Array, mask: Array) -> Array:
        plans = shares(boundaries, x.shape[1], mesh.size, default_block(x.shape[0], platform))
        parts = [plan.only(plan.full) for plan in plans], [plan.only(~plan.full) for plan in plans]
        walks = [walk_of(lax.axis_index(axis), part) for part in parts if any(len(own.start) for own in part)]
        local = tiled_gram(x, walks, len(boundaries), precision, platform)
        return exclude(lax.psum(local, axis), mask)

    return run


def mix(
    weights: Float[Array | np.ndarray, "m n"],
    x: Float[Array, "n d"],
    mesh: Mesh,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    base: Float[Array, "m d"] | None = None,
    precision: Precision = "highest",
) -> Float[Array, "m d"]:
    """`fedpl_kernels.mix` of an `x` sharded by columns; the result, and a donated `base`, are too."""
    p = jnp.asarray(weights)[None]
    return mix_blocks(p, x, mesh, ((0, x.shape[1]),), mask, base=base, precision=precision)


def mix_blocks(
    weights: Float[Array | np.ndarray, "blocks m n"],
    x: Float[Array, "n d"],
    mesh: Mesh,
    boundaries: Boundaries,
    mask: Bool[Array | np.ndarray, " n"] | None = None,
    *,
    base: Float[Array, "m d"] | None = None,
    precision: Precision = "highest",
) -> Float[Array, "m d"]:
    """`fedpl_kernels.mix_blocks` of an `x` sharded by columns; the result, and a donated `base`, are too.

    Raises:
        ValueError: as `fedpl_kernels.mix_blocks`.
    """
    check_precision(precision)
    check_boundaries(boundaries, x.shape[1])
    check_targets(weights.shape, x, boundaries, base, None, False)
    p = jnp.asarray(weights, jnp.float32)
    if mask is not None:
        p = jnp.where(jnp.asarray(mask), p, 0.0)
    return _mix(mesh, mesh.axis_names[0], precision, boundaries, base is not None)(base, p, x)


@lru_cache
def _mix(mesh: Mesh, axis: str, precision: Precision, boundaries: Boundaries, add: bool):  # type: ignore[no-untyped-def]
    platform = "cpu" if mesh.devices.flat[0].platform == "cpu" else "gpu"
    columns = Spec(None, axis)

    @partial(jax.jit, donate_argnums=0)
    @partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(columns if add else None, Spec(), columns),
        out_specs=columns,
        check_vma=False,
    )
    def run(base: Array | None, p: Array, x: Array) -> Array:
        plans = shares(boundaries, x.shape[1], mesh.size, default_block(max(p.shape[1:]), platform))
        covered = sum(stop - start for start, stop in boundaries) == x.shape[1] * mesh.size
        return walked_mix(base, p, x, precision, [walk_of(lax.axis_index(axis), plans)], covered)

    return run
