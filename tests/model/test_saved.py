"""Adapters on disk: plain PEFT on the architecture's own classifier answers as fedpl, or on its encoder."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForSequenceClassification,
    PeftModel,
)
from safetensors.torch import load_file
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    PretrainedConfig,
    Qwen2Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from fedpl.config import LoraSettings, ModelConfig
from fedpl.model.adapter import layout_of, unflatten
from fedpl.model.base import PooledClassifier, add_adapter, load_base
from fedpl.model.saved import save_adapter
from fedpl.model.weights import digest

COMMON: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
EXACT: dict[str, tuple[Callable[..., PretrainedConfig], str]] = {
    "albert": (AlbertConfig, "first"),
    "bert": (BertConfig, "first"),
    "deberta-v2": (DebertaV2Config, "first"),
    "distilbert": (DistilBertConfig, "first"),
    "electra": (ElectraConfig, "first"),
    "gpt2": (GPT2Config, "last"),
    "llama": (LlamaConfig, "last"),
    "mpnet": (MPNetConfig, "first"),
    "qwen2": (Qwen2Config, "last"),
    "roberta": (RobertaConfig, "first"),
    "xlm-roberta": (XLMRobertaConfig, "first"),
}
# Their own classifiers answer otherwise: another pooling, or a norm before the classes.
OTHERS = {
    "bert": (BertConfig, "mean"),
    "bert, last": (BertConfig, "last"),
    "gpt2": (GPT2Config, "mean"),
    "llama": (LlamaConfig, "first"),
    "modernbert": (ModernBertConfig, "first"),
}
IDS = torch.tensor([[5, 6, 7, 9, 8], [2, 4, 9, 1, 1], [9, 9, 2, 9, 1]])
MASK = (IDS != 1).long()
LABELS = {0: "no", 1: "yes", 2: "perhaps"}


def made(kind: tuple[Callable[..., PretrainedConfig], str], folder: Path) -> tuple[PeftModel, ModelConfig]:
    """A model in a folder, and on it an adapter and a head with other numbers than 0."""
    make, pooling = kind
    own = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
    own |= {ElectraConfig: {"embedding_size": 16}, Qwen2Config: {"num_key_value_heads": 2}}.get(make, {})  # type: ignore[call-overload]
    torch.manual_seed(0)
    AutoModel.from_config(make(**COMMON, **own)).save_pretrained(folder)
    settings = ModelConfig(path=str(folder), pooling=pooling)  # type: ignore[arg-type]
    return add_adapter(load_base(settings, 3), LoraSettings(r=2), str(folder), 0).eval(), settings


def saved(model: PeftModel, folder: Path) -> torch.Tensor:
    """The model's answers with a random adapter, which is written."""
    layout = layout_of(model)
    vector = torch.randn(layout.size)
    save_adapter(vector, model, layout, folder)
    unflatten(vector, model, layout)
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=MASK)


@pytest.mark.filterwarnings("error:Found missing adapter keys")
@pytest.mark.parametrize("name", EXACT)
def test_plain_peft_on_the_own_classifier_answers_as_fedpl(name: str, tmp_path: Path) -> None:
    model, settings = made(EXACT[name], tmp_path / "base")
    expected = saved(model, tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(settings.path, id2label=LABELS)
    base.config.pad_token_id = 1
    plain = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        found = plain(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1
    assert not (tmp_path / "adapter" / "head.safetensors").exists()


@pytest.mark.filterwarnings("error:Found missing adapter keys")
@pytest.mark.parametrize("name", OTHERS)
def test_plain_peft_on_the_encoder_gives_the_tuned_states(name: str, tmp_path: Path) -> None:
    model, settings = made(OTHERS[name], tmp_path / "base")
    expected = saved(model, tmp_path / "adapter")
    whole = PooledClassifier(AutoModel.from_pretrained(settings.path), 3, settings.pooling).eval()
    left = whole.load_state_dict(load_file(tmp_path / "adapter" / "head.safetensors"), strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith("encoder.") for key in left.missing_keys)
    untuned = whole(input_ids=IDS, attention_mask=MASK)
    whole.encoder = PeftModel.from_pretrained(whole.encoder, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        found = whole(input_ids=IDS, attention_mask=MASK)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found - untuned).abs().max() > 1e-2


@pytest.mark.parametrize("name", [*EXACT, "bert, mean"])
def test_classes_that_a_client_lacks_stay_out_of_what_is_written(name: str, tmp_path: Path) -> None:
    """In the architecture's own head too, and where the head has no bias until then (GPT-2, Llama, Qwen2)."""
    model, settings = made(EXACT.get(name, OTHERS["bert"]), tmp_path / "base")
    layout = layout_of(model)
    vector = torch.randn(layout.size)
    save_adapter(vector, model, layout, tmp_path / "adapter", classes=(0, 2))
    unflatten(vector, model, layout)
    beside = tmp_path / "adapter" / "head.safetensors"
    with torch.no_grad():
        expected = model(input_ids=IDS, attention_mask=MASK)
        if beside.exists():
            head = load_file(beside)
            whole = PooledClassifier(AutoModel.from_pretrained(settings.path), 3, settings.pooling).eval()
            whole.encoder = PeftModel.from_pretrained(whole.encoder, str(tmp_path / "adapter")).eval()
            whole.head = torch.nn.Linear(16, 3)
            whole.head.load_state_dict({key.removeprefix("head."): own for key, own in head.items()})
            found = whole(input_ids=IDS, attention_mask=MASK)
        else:
            own = AutoModelForSequenceClassification.from_pretrained(settings.path, id2label=LABELS)
            own.config.pad_token_id = 1
            plain = PeftModel.from_pretrained(own, str(tmp_path / "adapter")).eval()
            found = plain(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(found[:, [0, 2]], expected[:, [0, 2]], rtol=1e-5, atol=1e-5)
    assert (found.softmax(-1)[:, 1] == 0).all()
    assert beside.exists() == (name in ("gpt2", "llama", "qwen2", "bert, mean"))


def test_the_upper_blocks_alone(tmp_path: Path) -> None:
    """PEFT finds blocks by a pattern, which other names around them would break."""
    _, settings = made(EXACT["gpt2"], tmp_path / "base")
    lora = LoraSettings(r=2, layers_to_transform=(1,))
    for pooling in ("last", "mean"):
        base = load_base(ModelConfig(path=settings.path, pooling=pooling), 3)  # type: ignore[arg-type]
        saved(add_adapter(base, lora, settings.path, 0).eval(), tmp_path / pooling)
        own = AutoModelForSequenceClassification if pooling == "last" else AutoModel
        plain = PeftModel.from_pretrained(
            own.from_pretrained(settings.path, **_classes(own)), tmp_path / pooling
        )
        adapted = [name for name, module in plain.named_modules() if hasattr(module, "lora_A")]
        assert len(adapted) == 1
        assert adapted[0].endswith("h.1.attn.c_attn")


def _classes(own: type) -> dict[str, Any]:
    return {"num_labels": 3} if own is AutoModelForSequenceClassification else {}


def test_layers_of_the_pooler_and_many_classes(tmp_path: Path) -> None:
    """An adapter on the encoder's own pooler, which has no part in the answer, stands in nobody's way."""
    _, settings = made(EXACT["roberta"], tmp_path / "base")
    lora = LoraSettings(r=2, target_modules=("dense",))
    model = add_adapter(load_base(settings, 3), lora, settings.path, 0).eval()
    expected = saved(model, tmp_path / "adapter")
    base = AutoModelForSequenceClassification.from_pretrained(settings.path, num_labels=3)
    plain = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(
        plain(input_ids=IDS, attention_mask=MASK).logits, expected, rtol=1e-5, atol=1e-5
    )
    many = add_adapter(load_base(settings, 9), lora, settings.path, 0).eval()
    saved(many, tmp_path / "many")  # 2 · 9 > 16: no room in the own head
    assert (tmp_path / "many" / "head.safetensors").exists()


def test_auto_classes_of_peft_load_both(tmp_path: Path) -> None:
    model, _ = made(EXACT["bert"], tmp_path / "base")
    expected = saved(model, tmp_path / "own")
    auto = AutoPeftModelForSequenceClassification.from_pretrained(str(tmp_path / "own"), num_labels=3).eval()
    torch.testing.assert_close(
        auto(input_ids=IDS, attention_mask=MASK).logits, expected, rtol=1e-5, atol=1e-5
    )
    model, _ = made(OTHERS["bert"], tmp_path / "base")
    saved(model, tmp_path / "other")
    states = AutoPeftModelForFeatureExtraction.from_pretrained(str(tmp_path / "other")).eval()
    found = states(input_ids=IDS, attention_mask=MASK).last_hidden_state
    encoder = model.get_base_model().encoder  # type: ignore[union-attr]
    torch.testing.assert_close(found, encoder(input_ids=IDS, attention_mask=MASK).last_hidden_state)


_AGAIN = """
import sys
from pathlib import Path
import torch
from fedpl.config import LoraSettings, ModelConfig
from fedpl.model.adapter import layout_of
from fedpl.model.base import add_adapter, load_base
from fedpl.model.saved import save_adapter
base, folder = sys.argv[1:]
lora = LoraSettings(r=2, target_modules=("query", "key", "value", "dense"))
model = add_adapter(load_base(ModelConfig(path=base, pooling="first"), 3), lora, base, 0)
layout = layout_of(model)
save_adapter(torch.ones(layout.size), model, layout, Path(folder))
"""


def test_every_process_writes_the_same_bytes(tmp_path: Path) -> None:
    made(EXACT["bert"], tmp_path / "base")
    for seed in ("1", "2"):
        command = [sys.executable, "-c", _AGAIN, str(tmp_path / "base"), str(tmp_path / seed)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed}, timeout=300)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    config = json.loads((tmp_path / "1" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    assert config["base_model_name_or_path"] == str(tmp_path / "base")


def test_the_digest_of_parts_is_that_of_sha256sum_s_lines(small_model: Path, tmp_path: Path) -> None:
    whole = hashlib.sha256((small_model / "model.safetensors").read_bytes()).hexdigest()
    assert digest(str(small_model)) == whole
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for name in names:
        (tmp_path / name).write_text(name)
    lines = "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in names)
    assert digest(str(tmp_path)) == hashlib.sha256(lines.encode()).hexdigest()
