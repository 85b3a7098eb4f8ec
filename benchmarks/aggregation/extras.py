"""The questions beside the grid: LoRA product space, streaming from disk, precision, devices, loops."""

import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from fedpl_kernels import VectorStore, gram, lora_gram, mix, reference, sharded, sketch, streaming
from fedpl_kernels._precision import Precision

from benchmarks.aggregation.contestants import Call

from .contestants import PAIR_ROWS, draw, pair_loops, vectors
from .timing import PeakMemory, interleaved, once


def lora(turns: int, n: int = 64, r: int = 8, d: int = 768) -> dict[str, object]:
    """Exact products of LoRA updates against materialising every ΔW."""
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((n, r, d), dtype=np.float32))
    b = jnp.asarray(rng.standard_normal((n, d, r), dtype=np.float32))

    @jax.jit
    def materialise(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum("nor,nri->noi", b, a, precision="highest").reshape(n, -1)

    times = interleaved({"product": lambda: lora_gram(a, b), "dense": lambda: gram(materialise(a, b))}, turns)
    few = reference.lora_gram(np.asarray(a[:4]), np.asarray(b[:4]))
    error = np.abs(np.asarray(lora_gram(a, b))[:4, :4] - few).max() / few.max()
    return {
        "n": n,
        "r": r,
        "d": d,
        "product_s": times["product"].median,
        "dense_s": times["dense"].median,
        "speedup": times["dense"].median / times["product"].median,
        "relative_error": float(error),
    }


def loops(turns: int, n: int = 200, d: int = 500_000) -> dict[str, object]:
    """Pair-by-pair implementations, timed on some rows against all and scaled to all rows."""
    lent = draw(n, d).lent
    times = interleaved({"ours": lambda: gram(lent)} | pair_loops(lent), turns)
    scaled = {name: timing.median * n / PAIR_ROWS for name, timing in times.items() if name != "ours"}
    ours = times["ours"].median
    return {
        "n": n,
        "d": d,
        "rows_timed": PAIR_ROWS,
        "ours_s": ours,
        "loops_s": scaled,
        "speedup": {name: seconds / ours for name, seconds in scaled.items()},
    }


def out_of_core(turns: int, n: int, d: int, budget: int) -> dict[str, object]:
    """The Gram of a store in the page cache against the same in memory, in turns; and what it held."""
    with tempfile.TemporaryDirectory() as folder:
        store = VectorStore.create(Path(folder), n, d)
        rng = np.random.default_rng(0)
        for row in range(n):
            store.write(row, rng.standard_normal(d, dtype=np.float32))
        with PeakMemory() as peak:
            streamed = streaming.gram(store, memory_budget=budget).gram[0].block_until_ready()
        alone = peak.peak
        x = np.empty((n, d), np.float32)
        for row in range(n):
            store.read_into(row, 0, x[row])
        lent = jnp.asarray(x)
        times = interleaved(
            {
                "memory": lambda: gram(lent),
                "stream": lambda: streaming.gram(store, memory_budget=budget).gram,
            },
            turns,
        )
        error = float(jnp.abs(gram(lent) - streamed).max() / jnp.abs(streamed).max())
    return {
        "n": n,
        "d": d,
        "memory_budget": budget,
        "memory_s": times["memory"].median,
        "stream_s": times["stream"].median,
        "share_of_in_memory": times["memory"].median / times["stream"].median,
        "peak_resident_bytes": alone,
        "peak_extra_bytes": peak.extra,
        "difference": error,
    }


def profile(n: int, d: int, folder: str) -> None:
    """A trace of one Gram in every mode and one mix, for TensorBoard or Perfetto."""
    x = draw(n, d).lent
    weights = jnp.full((n, n), 1 / n)
    modes: tuple[Precision, ...] = ("highest", "tf32", "bf16")
    ways: dict[str, Call] = {mode: partial(gram, x, precision=mode) for mode in modes}
    ways["mix"] = partial(mix, weights, x)
    for call in ways.values():
        once(call)
    with jax.profiler.trace(folder):
        for name, call in ways.items():
            with jax.profiler.TraceAnnotation(name):
                once(call)


def precision(n: int = 64, d: int = 200_000) -> list[dict[str, object]]:
    """Errors of every policy against float64, for unrelated and for nearly parallel rows."""
    rng = np.random.default_rng(0)
    common = rng.standard_normal(d)
    rows = []
    for kind, spread in (("unrelated", None), ("cosine 0.99", 0.1)):
        noise = rng.standard_normal((n, d))
        x = (noise if spread is None else common + spread * noise).astype(np.float32)
        exact = x.astype(np.float64) @ x.astype(np.float64).T
        norms = np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
        found = {
            "highest": gram(x),
            "tf32": gram(x, precision="tf32"),
            "bf16": gram(x, precision="bf16"),
            "sketch 4096": sketch(x, 4096, jax.random.key(0)).gram,
            "numpy float32": x @ x.T,
        }
        for name, result in found.items():
            relative = np.abs(np.asarray(result, np.float64) - exact) / norms
            rows.append(
                {"rows": kind, "policy": name, "max": float(relative.max()), "mean": float(relative.mean())}
            )
    return rows


def devices(n: int = 64, d: int = 400_000) -> dict[str, object] | None:
    """The mesh of all devices against one of them; None where there is one only."""
    if jax.device_count() == 1:
        return None
    mesh, x = sharded.column_mesh(), vectors(n, d)
    columns = sharded.by_columns(x, mesh)
    exact, found = np.asarray(gram(x)), np.asarray(sharded.gram(columns, mesh))
    seconds = min(once(lambda: sharded.gram(columns, mesh)) for _ in range(5))
    return {
        "devices": mesh.size,
        "seconds": seconds,
        "difference": float(np.abs(found - exact).max() / exact.max()),
    }
