"""Architectures with tiny random weights: found targets, cohorts as PEFT, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from fedpl.config import ClientConfig, LoraSettings, ModelConfig
from fedpl.errors import UserError
from fedpl.model.adapter import layout_of, trainable, unflatten
from fedpl.model.base import add_adapter, load_base
from fedpl.model.vision import load_images_base
from fedpl.training.stacked.engine import Engine
from fedpl.training.stacked.packing import Limits, Row, pack
from fedpl.training.stacked.stack import Stack
from tests import tiny_images
from tests.training.stacked.test_packing import learner

COMMON: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
GROUPED = {"num_key_value_heads": 1}
# What an architecture needs beside the common shape.
ENCODERS: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bert": {},
    "camembert": {},
    "data2vec-text": {},
    "deberta": {},
    "deberta-v2": {},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "layoutlm": {},
    "megatron-bert": {},
    "modernbert": {},
    "mpnet": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": {},
    "roformer": {"embedding_size": 16},
    "xlm-roberta": {},
}
DECODERS: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 2},
    "cohere": GROUPED,
    "falcon": {},
    "gemma": GROUPED | {"head_dim": 8},
    "gemma2": GROUPED | {"head_dim": 8},
    "gemma3_text": GROUPED | {"head_dim": 8},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "gpt_neox": {},
    "granite": GROUPED,
    "llama": GROUPED,
    "mistral": GROUPED,
    "olmo": GROUPED,
    "opt": {"ffn_dim": 24, "word_embed_proj_dim": 16},
    "phi": GROUPED,
    "phi3": GROUPED,
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 8},
    "smollm3": GROUPED,
    "stablelm": GROUPED,
}
TOWERS = ("clip", "deit", "dinov2", "dinov2_with_registers", "siglip", "vit")


def folder_of(name: str, folder: Path, own: dict[str, Any]) -> Path:
    config = transformers.AutoConfig.for_model(name, **COMMON, **own)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
    return folder


def test_there_are_thirty() -> None:
    assert len(ENCODERS) + len(DECODERS) + len(TOWERS) >= 30


@pytest.mark.filterwarnings("ignore:.*gradient layout contract")
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_a_cohort_of_texts_is_peft_one_by_one(name: str, tmp_path: Path) -> None:
    path = str(folder_of(name, tmp_path, ENCODERS.get(name, DECODERS.get(name, {}))))
    settings = ModelConfig(path=path, pooling="mean" if name in ENCODERS else "last", max_length=16)
    model = add_adapter(load_base(settings, 3), LoraSettings(r=2), path, 0).eval()
    layout = layout_of(model)
    theta = 0.3 * torch.randn(3, layout.size, generator=torch.Generator().manual_seed(1))
    gradient = torch.zeros_like(theta)
    engine = Engine(model, layout, ClientConfig())
    engine.stack.bind(theta, gradient)
    source = learner([3, 1, 4, 1, 5, 9], 0, 1).examples
    (part,) = pack([Row(client, source, i) for i, client in enumerate((2, 0, 2, 1, 1, 2))], Limits(999, 999))
    found = engine(part, cache=True)
    found.square().sum().backward()
    for client in range(3):
        own = part.client == client
        expected, grads = alone(model, theta[client], {key: each[own] for key, each in part.inputs.items()})
        torch.testing.assert_close(found[own], expected, rtol=1e-4, atol=1e-5)
        assert relative(gradient[client], grads) < 1e-4


@pytest.mark.parametrize("name", TOWERS)
def test_a_cohort_of_images_is_peft_one_by_one(name: str, tmp_path: Path) -> None:
    path = str(tiny_images.tower(tmp_path, name))
    model = add_adapter(load_images_base(ModelConfig(path=path), 3), LoraSettings(r=2), path, 0).eval()
    layout = layout_of(model)
    theta = 0.3 * torch.randn(3, layout.size, generator=torch.Generator().manual_seed(1))
    gradient = torch.zeros_like(theta)
    stack = Stack(model, layout)
    stack.bind(theta, gradient)
    owners = torch.tensor([2, 0, 2, 1])
    stream = torch.Generator().manual_seed(2)
    shape = (4, 3, tiny_images.SIDE, tiny_images.SIDE)
    pixels = torch.randint(0, 256, shape, generator=stream, dtype=torch.uint8)
    found = stack(owners, {"pixel_values": pixels})
    found.square().sum().backward()
    for client in range(3):
        own = owners == client
        expected, grads = alone(model, theta[client], {"pixel_values": pixels[own]})
        torch.testing.assert_close(found[own], expected, rtol=1e-4, atol=1e-5)
        assert relative(gradient[client], grads) < 1e-4


def alone(model: Any, vector: Tensor, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """What PEFT's model answers with one client's adapter, and the gradient of the squares' sum."""
    layout = layout_of(model)
    unflatten(vector, model, layout)
    model.zero_grad()
    answers = model(**inputs)
    answers.square().sum().backward()
    parts = [trainable(model)[entry.name] for entry in layout.entries]
    return answers, torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parts])


def relative(found: Tensor, expected: Tensor) -> float:
    assert expected.norm() > 0
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["bart", "mbart", "pegasus", "t5"])
def test_encoder_decoders_are_refused_by_name(name: str, tmp_path: Path) -> None:
    small = {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 40}
    small |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 32}
    config = transformers.AutoConfig.for_model(name, **small)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"model\.path: .* is an encoder-decoder \({name}\)"):
        load_base(ModelConfig(path=str(tmp_path), max_length=16), 2)
