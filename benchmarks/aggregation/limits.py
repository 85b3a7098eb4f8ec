"""What the machine can do at most, as measured: the fastest large product, copy and triad.

Names as in STREAM: copy a ← b, triad a ← b + s c; bytes are those a program has to move, without what a
cache reads before it writes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch

from .timing import Timing, interleaved, on_gpu

# Numbers of an array whose bandwidth is measured, on a CPU (far beyond its caches) and on a GPU.
_STREAMED = (64_000_000, 1_000_000_000)
_MOVED = {"copy": 2, "triad": 3}


class Limits(NamedTuple):
    """The fastest product and triad, to be timed with the contestants, and what they compute and move."""

    product: Callable[[], object]
    flops: float
    triad: Callable[[], object]
    moved: float

    def rates(self, product: Timing, triad: Timing) -> tuple[float, float]:
        """Operations and bytes a second, from turns of one case."""
        return self.flops / product.median, self.moved / triad.median


def square_product(size: int, dtype: str = "float32", precision: str = "highest") -> Callable[[], jax.Array]:
    """A large product of square matrices by JAX."""
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(key, (size, size), jnp.float32).astype(dtype) for key in keys)

    @jax.jit
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=precision, preferred_element_type=jnp.float32)

    return lambda: product(a, b)


def mode_of(name: str) -> str:
    """A contestant's arithmetic, whose own limit it is compared with."""
    return next((mode for mode in ("tf32", "bf16") if mode in name), "highest")


def products(size: int) -> dict[str, Callable[[], object]]:
    """float32 products of square matrices, by everybody."""
    x = jax.random.normal(jax.random.key(1), (size, size), jnp.float32)
    tensor = torch.from_dlpack(x)
    out = torch.empty_like(tensor)
    ways: dict[str, Callable[[], object]] = {
        "jax": square_product(size),
        "torch": lambda: torch.mm(tensor, tensor, out=out),
    }
    if on_gpu():
        return ways
    host, place = np.asarray(x), np.empty((size, size), np.float32)
    return ways | {"numpy": lambda: np.matmul(host, host, out=place)}


def streams() -> dict[str, Callable[[], object]]:
    """Copy and triad, by JAX into new memory and by torch into memory that is there."""
    b, c = jnp.ones(_STREAMED[on_gpu()]), jnp.ones(_STREAMED[on_gpu()])
    tensor_b, tensor_c = torch.from_dlpack(b), torch.from_dlpack(c)
    a = torch.zeros_like(tensor_b)
    copy, triad = jax.jit(jnp.copy), jax.jit(lambda b, c: b + 3.0 * c)
    return {
        "copy jax": lambda: copy(b),
        "copy torch": lambda: a.copy_(tensor_b),
        "triad jax": lambda: triad(b, c),
        "triad torch": lambda: torch.add(tensor_b, tensor_c, alpha=3.0, out=a),
    }


def measure(size: int, turns: int) -> tuple[Limits, dict[str, float]]:
    """The fastest of each kind, and all rates: operations a second by mode and by whom, bytes a second."""
    square, stream = products(size), streams()
    others = {"tf32": square_product(size, precision="high")}
    others["bf16"] = square_product(size, "bfloat16", "default")
    timings = interleaved(square | stream | others, turns)
    operations, numbers = 2.0 * size**3, 4.0 * _STREAMED[on_gpu()]
    rates = {name: operations / timings[name].median for name in (*square, *others)}
    rates |= {name: numbers * _MOVED[name.split()[0]] / timings[name].median for name in stream}
    best = max(square, key=rates.__getitem__)
    rates["highest"] = rates[best]
    for kind in _MOVED:
        rates[f"{kind}_bytes"] = max(rates[name] for name in stream if name.startswith(kind))
    triad = max((name for name in stream if name.startswith("triad")), key=rates.__getitem__)
    return Limits(square[best], operations, stream[triad], 3 * numbers), rates
