"""Frozen weights in 4 or 8 bits, by bitsandbytes."""

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from torch import nn
from transformers import BitsAndBytesConfig

from fedpl.errors import UserError

# It would say in every pass that activations are rounded.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def quantisation(bits: str | None, keep: Sequence[str] | None = None) -> dict[str, Any]:
    """What transformers' ``from_pretrained`` is to be given for frozen weights of so many bits.

    8-bit layers round activations row by row and treat no column apart, as they would by themselves: which
    columns are large depends on all rows of a pass, and so a client's results would on its company.

    Args:
        bits: model.quantized.
        keep: Names of modules that stay as they are; None: transformers' choice (embeddings, the last layer).

    Raises:
        UserError: If bitsandbytes is not installed.
    """
    if bits is None:
        return {}
    if find_spec("bitsandbytes") is None:
        raise UserError("model.quantized: needs the package bitsandbytes; pip install 'fedpl[quantized]'")
    # By name, wherever it stands.
    kept = None if keep is None else [*keep, *(rf".*\.{name}" for name in keep)]
    if bits == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=kept)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=kept)
    return {"quantization_config": config}


def settle(model: nn.Module) -> None:
    """Keep packed weights what they are for as long as the model lives.

    On CPUs with bfloat16 a 4-bit layer would round its scales to that type when it is first asked for an
    answer, for good: what is trained would depend on what has been evaluated before, and so on resumes.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer's weights are packed."""
    return type(module).__module__.startswith("bitsandbytes.")
