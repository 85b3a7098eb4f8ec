"""A causal language model of 135 million parameters, for timing: a small Llama with random weights."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModel, LlamaConfig

from fedpl.config import Config, ModelConfig
from fedpl.model.pretrained import load_tokenizer

NAME = "llama-135m"
VOCABULARY = 49_152


def shape(vocabulary: int = VOCABULARY) -> LlamaConfig:
    """That of SmolLM2-135M."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=576,
        intermediate_size=1_536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )


def model_config(name: str) -> ModelConfig:
    """The model of this name: `NAME`, or whatever fedpl can load.

    Speed does not depend on what the weights know; the tokenizer is the default model's.
    """
    if name != NAME:
        return ModelConfig(path=name)
    return ModelConfig(path=str(_written()), pooling="last")


@cache
def _written() -> Path:
    folder = Path(_temporary().name) / NAME
    torch.manual_seed(0)
    AutoModel.from_config(shape()).save_pretrained(folder)
    load_tokenizer(Config().model).save_pretrained(folder)
    return folder


@cache
def _temporary() -> TemporaryDirectory:
    return TemporaryDirectory()  # removed with the process
