"""What the machine can do at most: the rates of a square product and of a copy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .timing import interleaved, on_gpu

# Numbers of the copy that measures bandwidth, on a CPU and on a GPU.
_COPIED = (100_000_000, 1_000_000_000)


def square_product(size: int, dtype: str = "float32", precision: str = "highest") -> Callable[[], jax.Array]:
    """A large product of square matrices: the machine's own limit for arithmetic."""
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(key, (size, size), jnp.float32).astype(dtype) for key in keys)

    @jax.jit
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.matmul(a, b, precision=precision, preferred_element_type=jnp.float32)

    return lambda: product(a, b)


def mode_of(name: str) -> str:
    """A contestant's arithmetic, whose own limit it is compared with."""
    return next((mode for mode in ("tf32", "bf16") if mode in name), "highest")


def limits(size: int, turns: int) -> dict[str, float]:
    """Measured rates: operations a second of a square product for each precision, and bytes a second."""
    wide = jnp.zeros(_COPIED[on_gpu()], jnp.float32)
    copy = jax.jit(lambda x: x + 1.0)
    products = {
        "highest": square_product(size),
        "tf32": square_product(size, precision="high"),
        "bf16": square_product(size, "bfloat16", "default"),
    }
    timings = interleaved(products | {"copy": lambda: copy(wide)}, turns)
    rates = {name: 2.0 * size**3 / timings[name].median for name in products}
    return rates | {"copy_bytes": 2.0 * wide.nbytes / timings["copy"].median}
