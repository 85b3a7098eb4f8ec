"""Kernels for task-vector aggregation in JAX: pairwise similarity and personalised mixing.

Imports jax and numpy only, and sets no global JAX option. n clients, d parameters, X [n, d] task vectors.
"""

from . import reference, weights
from ._cosine import cosine, cosine_blocks
from ._gram import gram, gram_blocks, usable_rows
from ._mix import mix, mix_blocks
from ._precision import Precision

__all__ = [
    "Precision",
    "cosine",
    "cosine_blocks",
    "gram",
    "gram_blocks",
    "mix",
    "mix_blocks",
    "reference",
    "usable_rows",
    "weights",
]
