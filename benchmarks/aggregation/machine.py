"""What ran the benchmark: described by its parts, never by a name; and what the parts can do at most."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from .timing import interleaved

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "scipy")


def describe(threads: int) -> dict[str, object]:
    """CPU or GPU model, threads used, memory, versions, commit."""
    cpu = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "device": jax.devices()[0].device_kind if jax.default_backend() != "cpu" else "cpu",
        "cpu": cpu[0] if cpu else platform.machine(),
        "threads": threads,
        "memory_gb": round(os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "kernels", "benchmarks")),
    }


def square_product(size: int, dtype: str = "float32", precision: str = "highest") -> Callable[[], jax.Array]:
    """A large product of square matrices: the machine's own limit for arithmetic."""
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(key, (size, size), jnp.float32).astype(dtype) for key in keys)

    @jax.jit
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=precision, preferred_element_type=jnp.float32)

    return lambda: product(a, b)


def limits(size: int, turns: int) -> dict[str, float]:
    """Measured rates: operations a second of a square product for each precision, and bytes a second."""
    wide = jnp.zeros(100_000_000, jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    products = {
        "highest": square_product(size),
        "tf32": square_product(size, precision="high"),
        "bf16": square_product(size, "bfloat16", "default"),
    }
    timings = interleaved(products | {"copy": lambda: copy(wide)}, turns)
    rates = {name: 2.0 * size**3 / timings[name].median for name in products}
    return rates | {"copy_bytes": 2.0 * wide.nbytes / timings["copy"].median}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    return ended.stdout.strip()
