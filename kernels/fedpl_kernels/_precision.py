"""What a product of task vectors may round: the precision policy, in one place.

Accumulation is float32 whatever the policy; only the *inputs* of the multiplications lose bits.
"""

from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array, lax

Precision = Literal["highest", "tf32", "bf16"]

# `HIGH` is TF32 on an NVIDIA GPU and plain float32 on a CPU. The default would be TF32 too, unasked.
_LAX = {"highest": lax.Precision.HIGHEST, "tf32": lax.Precision.HIGH, "bf16": lax.Precision.DEFAULT}


def check_precision(precision: str) -> None:
    """Raises ValueError unless `precision` is one of the policy's names."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected one of {', '.join(get_args(Precision))}; got {precision!r}")


def contract(spec: str, left: Array, right: Array, precision: Precision) -> Array:
    """`einsum` of two operands with float32 accumulation and result, under the policy.

    bfloat16 operands stay bfloat16 under every policy: their products are exact in float32. Two
    operands of different types are both taken to float32, or both to bfloat16 under "bf16".
    """
    if precision == "bf16":
        left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    elif not (left.dtype == right.dtype == jnp.bfloat16):
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    return jnp.einsum(spec, left, right, precision=_LAX[precision], preferred_element_type=jnp.float32)
