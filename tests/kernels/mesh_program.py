"""Run by test_sharded.py in processes of its own, as `mesh_program.py PROCESS PROCESSES PORT`."""

import json
import sys

import jax
import numpy as np

process, processes, port = map(int, sys.argv[1:])
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)

# After the processes know each other.
from fedpl_kernels import gram, gram_blocks, mix, mix_blocks, sharded  # noqa: E402

from tests import bounds  # noqa: E402

N, D = 24, 5003
rng = np.random.default_rng(0)
x, p, base = (rng.standard_normal(shape).astype(np.float32) for shape in ((N, D), (N, N), (N, D)))
x[5, 7] = np.nan
p[:, 5] = 0
mask = np.arange(N) != 3

mesh = sharded.column_mesh()
share = N // processes
rows = sharded.from_rows(x[process * share : (process + 1) * share], mesh)
largest = max(shard.data.nbytes for shard in rows.addressable_shards)
columns = sharded.by_columns(rows, mesh)
products = np.asarray(sharded.gram(columns, mesh, mask))
onto = sharded.by_columns(base, mesh)
mixed = sharded.mix(p, columns, mesh, mask, base=onto)
expected_gram = np.asarray(gram(x, mask))
hlo = sharded._resharded(mesh, "d", -D % mesh.size).lower(rows).compile().as_text()
# Ranges within a device, across several, side by side, and with columns between them that belong to none.
RANGES = ((0, 40), (40, 1990), (2100, 2101), (2600, D))
blocks = np.asarray(sharded.gram_blocks(columns, mesh, RANGES, mask))
expected_blocks = np.asarray(gram_blocks(x, RANGES, mask))
own = np.stack([p, -p, p.T, 2 * p])
own[:, :, 5] = 0


def of_allowed(found: jax.Array, expected: np.ndarray, allowed: np.ndarray) -> float:
    """The largest part of what float32 may be off by, here and there; 0 in columns beyond D."""
    padding = ((0, 0), (0, found.shape[1] - D))
    expected, both = np.pad(expected, padding), np.pad(2 * allowed, padding, constant_values=1e-30)
    return max(
        float((np.abs(np.asarray(s.data) - expected[s.index]) / both[s.index]).max())
        for s in found.addressable_shards
    )


clean = np.nan_to_num(x)


onto_blocks = sharded.mix_blocks(own, columns, mesh, RANGES, mask, base=sharded.by_columns(base, mesh))
new_blocks = sharded.mix_blocks(own[:, :7], columns, mesh, RANGES, mask)
report = {
    "gram_blocks": float((np.abs(blocks - expected_blocks).max((1, 2)) / expected_blocks.max((1, 2))).max()),
    "gram_blocks_excluded": np.flatnonzero(~blocks.any((0, 2))).tolist(),
    "mix_blocks": of_allowed(
        onto_blocks,
        np.asarray(mix_blocks(own, x, RANGES, mask)) + base,
        bounds.product(np.abs(own).max(0), clean, base),
    ),
    "mix_blocks_new": of_allowed(
        new_blocks,
        np.asarray(mix_blocks(own[:, :7], x, RANGES, mask)),
        bounds.product(np.abs(own[:, :7]).max(0), clean),
    ),
    "devices": jax.device_count(),
    "local": jax.local_device_count(),
    "gram": float(np.abs(products - expected_gram).max() / expected_gram.max()),
    "mix": of_allowed(mixed, np.asarray(mix(p, x, mask)) + base, bounds.product(p, clean, base)),
    "excluded": np.flatnonzero(~products.any(1)).tolist(),
    "base_deleted": onto.is_deleted(),
    "largest_shard": largest,
    "columns_shard": max(shard.data.nbytes for shard in columns.addressable_shards),
    "collectives": sorted({op for op in ("all-to-all", "all-gather", "all-reduce") if f"{op}(" in hlo}),
}
print(json.dumps(report), flush=True)
