"""Float64 NumPy versions of the kernels: written from the formulas, slow and plain, for comparison."""

from . import weights
from .lora import lora_gram
from .products import cosine, cosine_blocks, gram, gram_blocks, mix, mix_blocks

__all__ = ["cosine", "cosine_blocks", "gram", "gram_blocks", "lora_gram", "mix", "mix_blocks", "weights"]
