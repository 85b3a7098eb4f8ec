"""A small adapter layout, and rounds of made-up task vectors on it."""

import jax.numpy as jnp
import numpy as np

from fedpl.records.layout import AdapterLayout
from fedpl.server.state import TaskVectors
from tests import bounds

SHAPES = {
    "encoder.layer.0.query.lora_A.weight": (3, 10),
    "encoder.layer.0.query.lora_B.weight": (8, 3),
    "encoder.layer.0.value.lora_A.weight": (3, 10),
    "encoder.layer.0.value.lora_B.weight": (8, 3),
    "encoder.layer.1.query.lora_A.weight": (3, 10),
    "encoder.layer.1.query.lora_B.weight": (8, 3),
    "head.weight": (2, 6),
    "head.bias": (2,),
}
LORA = AdapterLayout.of(SHAPES, scale=2.0)
COSINE = bounds.cosine(LORA.size)  # what a cosine of two task vectors is off by, at most


def reference(seed: int = 7) -> np.ndarray:
    """θ₀ as LoRA has it: A and head random, B zero."""
    theta = np.random.default_rng(seed).normal(size=LORA.size).astype(np.float32)
    for entry in LORA.entries:
        if entry.kind == "lora_B":
            theta[entry.start : entry.stop] = 0
    return theta


def task_vectors(seed: int, n: int = 6, groups: int = 2) -> np.ndarray:
    """Group directions with noise, float32 [n, params]."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, LORA.size))
    return (centres[np.arange(n) % groups] + rng.normal(size=(n, LORA.size))).astype(np.float32) * 0.1


def vectors(
    matrix: np.ndarray,
    mask: list[bool] | None = None,
    sizes: list[int] | None = None,
    age: list[int] | None = None,
    groups: tuple[str, ...] | None = None,
) -> TaskVectors:
    n = len(matrix)
    return TaskVectors(
        jnp.asarray(matrix, jnp.float32),
        jnp.array(mask or [True] * n),
        jnp.array(sizes or [1] * n),
        None if age is None else jnp.array(age),
        groups,
        jnp.full(n, 0.5),
    )


def dense(theta: np.ndarray) -> list[np.ndarray]:
    """s B A of every adapted module, float64."""
    return [
        LORA.scale
        * theta[b.start : b.stop].reshape(b.shape).astype(np.float64)
        @ theta[a.start : a.stop].reshape(a.shape).astype(np.float64)
        for a, b in LORA.pairs
    ]
