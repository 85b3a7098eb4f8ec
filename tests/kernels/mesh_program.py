"""Run by test_sharded.py in processes of its own, as `mesh_program.py PROCESS PROCESSES PORT`."""

import json
import sys

import jax
import numpy as np

process, processes, port = map(int, sys.argv[1:])
if processes > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process)

from fedpl_kernels import gram, mix, sharded  # noqa: E402  (after the processes know each other)

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
expected = np.pad(np.asarray(mix(p, x, mask)) + base, ((0, 0), (0, mixed.shape[1] - D)))
error = max(float(np.abs(np.asarray(s.data) - expected[s.index]).max()) for s in mixed.addressable_shards)
hlo = sharded._resharded(mesh, "d", -D % mesh.size).lower(rows).compile().as_text()
report = {
    "devices": jax.device_count(),
    "local": jax.local_device_count(),
    "gram": float(np.abs(products - expected_gram).max() / expected_gram.max()),
    "mix": error,
    "excluded": np.flatnonzero(~products.any(1)).tolist(),
    "base_deleted": onto.is_deleted(),
    "largest_shard": largest,
    "columns_shard": max(shard.data.nbytes for shard in columns.addressable_shards),
    "collectives": sorted({op for op in ("all-to-all", "all-gather", "all-reduce") if f"{op}(" in hlo}),
}
print(json.dumps(report), flush=True)
