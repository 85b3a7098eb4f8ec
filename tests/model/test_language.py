"""Causal language models of many families: where they are adapted, and how few logits they make."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import (
    BertConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    StableLmConfig,
    T5Config,
)

from fedpl.config import LoraSettings, ModelConfig
from fedpl.errors import UserError
from fedpl.model.foundation import Foundation
from fedpl.model.hardware import Hardware
from fedpl.model.language import LanguageModel, load_language_model
from fedpl.training.settings import ClientConfig
from fedpl.training.stacked.engine import Engine
from tests.tiny_language import LLAMA, VOCABULARY, language_model

SHAPE = {**LLAMA, "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
WITH_HEADS = {**SHAPE, "head_dim": 8}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SHAPE),
    "smollm2": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "smollm3": SmolLM3Config(**SHAPE),
    "mistral": MistralConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**WITH_HEADS),
    "gemma": GemmaConfig(**WITH_HEADS),
    "gemma2": Gemma2Config(**WITH_HEADS, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(**WITH_HEADS, query_pre_attn_scalar=8),
    "phi": PhiConfig(**SHAPE),
    "phi3": Phi3Config(**SHAPE),
    "cohere": CohereConfig(**SHAPE),
    "granite": GraniteConfig(**SHAPE, logits_scaling=4.0),
    "olmo": OlmoConfig(**SHAPE),
    "stablelm": StableLmConfig(**SHAPE),
    "gpt-neox": GPTNeoXConfig(**SHAPE),
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        word_embed_proj_dim=32,
        pad_token_id=1,
    ),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=256),
}
CPU = Hardware(torch.device("cpu"), "32-true")


def batch() -> dict[str, torch.Tensor]:
    """Three rows of different lengths; the last one learns two stretches."""
    stream = torch.Generator().manual_seed(0)
    ids = torch.randint(2, VOCABULARY, (3, 9), generator=stream)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 8 + [0]])
    learned = torch.zeros(3, 9, dtype=torch.bool)
    learned[0, 7:] = learned[1, 3:5] = True
    learned[2, 2:4] = learned[2, 6:8] = True
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask, "learned": learned}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_adapted_and_makes_logits_where_answers_are(family: str, tmp_path: Path) -> None:
    """The sums are those of the model's own logits at all positions; alone and stacked give the same."""
    folder = language_model(tmp_path, FAMILIES[family])
    base = load_language_model(ModelConfig(path=str(folder)))
    foundation = Foundation(base, LoraSettings(r=2), str(folder), 0, CPU)
    inputs = batch()
    made: list[int] = []
    vocabulary = base.encoder.get_output_embeddings()
    hook = vocabulary.register_forward_hook(lambda *call: made.append(call[2][..., 0].numel()))
    vector = torch.randn(foundation.layout.size, generator=torch.Generator().manual_seed(1)) * 0.1
    engine = Engine(foundation.model, foundation.layout, ClientConfig())
    with torch.no_grad():
        plain = foundation.model(**inputs)
        assert made == [int(inputs["learned"].sum())]
        whole = base.encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        hook.remove()
        tokens = F.cross_entropy(
            whole[:, :-1].flatten(0, 1), inputs["input_ids"][:, 1:].flatten(), reduction="none"
        ).view(3, 8)
        expected = -(tokens * inputs["learned"][:, 1:]).sum(1)
        torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-4)
        engine.stack.bind(vector.expand(3, -1))
        stacked = engine.stack(torch.arange(3), inputs)
        engine.stack.bind(torch.zeros_like(vector).expand(3, -1))
        zero = engine.stack(torch.arange(3), inputs)
    torch.testing.assert_close(zero, plain, rtol=1e-4, atol=1e-4)
    assert (stacked - plain).abs().max() > 1e-4


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
        ),
        T5Config(vocab_size=99, d_model=32, num_layers=1, num_heads=2, d_ff=8, d_kv=16),
    ],
    ids=["bert", "t5"],
)
def test_what_sees_all_words_is_refused(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no causal language model"):
        load_language_model(ModelConfig(path=str(tmp_path)))


def test_the_output_layer_is_not_adapted(tmp_path: Path) -> None:
    base = load_language_model(ModelConfig(path=str(language_model(tmp_path))))
    with pytest.raises(UserError, match="output layer"):
        Foundation(base, LoraSettings(r=2, target_modules=("q_proj", "lm_head")), "m", 0, CPU)


def test_the_head_is_shown_the_state_before_the_last_answer(tmp_path: Path) -> None:
    base = LanguageModel(load_language_model(ModelConfig(path=str(language_model(tmp_path)))).encoder)
    seen: list[torch.Tensor] = []
    base.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    inputs = batch()
    with torch.no_grad():
        base(**inputs)
        states = base.encoder.model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    torch.testing.assert_close(seen[0], states[[0, 1, 2], [6, 2, 5]])
