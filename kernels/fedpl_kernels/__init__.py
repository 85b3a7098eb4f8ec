"""Kernels for task-vector aggregation in JAX: pairwise similarity and personalised mixing.

Imports jax and numpy only, and sets no global JAX option. n clients, d parameters, X [n, d] task vectors.
"""

from . import reference, sharded, streaming, weights
from ._blas import use_blas_of
from ._cosine import cosine, cosine_blocks
from ._distance import Distances, squared_distances
from ._gram import gram, gram_blocks, usable_rows
from ._lora import lora_delta, lora_gram, pad_rank
from ._mix import mix, mix_blocks
from ._precision import Precision
from ._sketch import Sketch, sketch
from .store import VectorStore

__all__ = [
    "Distances",
    "Precision",
    "Sketch",
    "VectorStore",
    "cosine",
    "cosine_blocks",
    "gram",
    "gram_blocks",
    "lora_delta",
    "lora_gram",
    "mix",
    "mix_blocks",
    "pad_rank",
    "reference",
    "sharded",
    "sketch",
    "squared_distances",
    "streaming",
    "usable_rows",
    "use_blas_of",
    "weights",
]
