"""Frozen weights in 4 and 8 bits: cohorts learn what clients alone learn, adapters load on the same."""

import json
import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

import fedpl
from fedpl.config import Config, LoraSettings, ModelConfig, with_changes
from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.model import quantised
from fedpl.model.base import add_adapter, load_base
from fedpl.objectives import FedDPA
from fedpl.problems import problems
from tests.training.conftest import CPU
from tests.training.facade import ClientTrainer
from tests.training.stacked.test_cohorts import one_by_one, relative, together

installed = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
# 8-bit layers round activations: what differs by rounding may come to lie one step apart.
NEAR = {"4bit": 1e-3, "8bit": 0.1}


@pytest.fixture
def make(small_model: Path, people: FederatedData) -> Callable[..., ClientTrainer]:
    def trainer(bits: str | None, **client: Any) -> ClientTrainer:
        changes = {"batch_size": 4, "model_dropout": False, "max_steps": 6} | client
        config = with_changes(Config(), {f"client.{name}": value for name, value in changes.items()})
        model: Any = ModelConfig(path=str(small_model), quantized=bits)  # type: ignore[arg-type]
        config = Config(model=model, lora=LoraSettings(r=4), client=config.client)
        return ClientTrainer(config, people, CPU)

    return trainer


def packed(trainer: ClientTrainer) -> set[torch.dtype]:
    return {p.dtype for p in trainer.model.parameters() if not p.is_floating_point()}


@installed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_cohorts_equal_clients_alone(make: Callable[..., ClientTrainer], bits: str) -> None:
    plain, _ = together(make(None))
    trainer = make(bits)
    assert packed(trainer) == {{"4bit": torch.uint8, "8bit": torch.int8}[bits]}
    found, fits = together(trainer)  # first, so that alone has to share what 8-bit layers take at first use
    expected, reports = one_by_one(trainer)
    assert relative(found, expected) < NEAR[bits]
    assert [fit.loss for fit in fits] == pytest.approx([fit.loss for fit in reports], rel=NEAR[bits])
    assert relative(found, plain) > 0.01, "or nothing was packed"
    alone: Tensor = together(trainer, [3])[0]
    assert relative(alone, found[[3]]) < NEAR[bits], "not by company"


@installed
def test_what_is_trained_does_not_depend_on_what_was_evaluated(make: Callable[..., ClientTrainer]) -> None:
    trainer = make("4bit")
    before, _ = together(trainer)
    kept = {name: p.clone() for name, p in trainer.model.named_parameters() if not p.is_floating_point()}
    trainer.score("c1", trainer.initial(), "test")
    after, _ = together(trainer)
    assert after.equal(before)
    assert all(p.equal(kept[n]) for n, p in trainer.model.named_parameters() if n in kept)


@installed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_large_activations_of_others_change_nothing(small_model: Path, bits: Any) -> None:
    encoder = load_base(ModelConfig(path=str(small_model), quantized=bits), 2).encoder.eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "LayerNorm.weight" in name:
                parameter.mul_(8)  # beyond what 8-bit layers would treat apart, in different columns
        ids = torch.tensor([[3, 9, 4, 11], [7, 12, 20, 5], [8, 8, 21, 6]])
        together, alone = (encoder(input_ids=rows).last_hidden_state[:1] for rows in (ids, ids[:1]))
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@installed
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_packed_weights_are_not_shifted(make: Callable[..., ClientTrainer], bits: str) -> None:
    trainer = make(bits)
    trainer.shift(None)
    with pytest.raises(ValueError, match=r"these are packed \(model\.quantized\)"):
        trainer.shift(torch.zeros(4096))


@installed
def test_two_adapters_at_a_time(make: Callable[..., ClientTrainer]) -> None:
    trainer = make("4bit", objective=FedDPA(variant="F"))
    found, _ = together(trainer)
    expected, _ = one_by_one(trainer)
    assert relative(found, expected) < NEAR["4bit"]


@installed
def test_a_rank_is_held_against_the_layer_and_not_its_packed_form(tmp_path: Path) -> None:
    sizes: Any = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    LlamaModel(LlamaConfig(vocab_size=40, **sizes)).save_pretrained(tmp_path)
    config = ModelConfig(path=str(tmp_path), pooling="last", quantized="4bit")
    with pytest.raises(UserError, match=r"lora\.r: 33 .* \(32 × 32\)"):
        add_adapter(load_base(config, 2), LoraSettings(r=33), "x", 0)
    add_adapter(load_base(config, 2), LoraSettings(r=32), "x", 0)


@installed
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_adapter_is_loaded_on_what_it_was_trained_on(
    pooling: str, small_model: Path, small_table: Path, tmp_path: Path
) -> None:
    config = Config.load(
        "default",
        **{
            "model.path": str(small_model),
            "model.pooling": pooling,
            "model.quantized": "4bit",
            "data": {
                "class_path": "fedpl.data.TextFiles",
                "init_args": {"paths": [str(small_table)], "columns": {"split": "split"}},
            },
            "lora.r": 2,
            "client.max_steps": 2,
            "rounds": 1,
            "baselines": [],
            "tracking.plots": False,
            "accelerator": "cpu",
            "run_dir": str(tmp_path / "run"),
        },
    )
    run = Path(fedpl.run(config).path)
    loaded = fedpl.load(run, "one-a")
    assert any(p.dtype == torch.uint8 for p in loaded.model.parameters())
    folder = run / "adapters" / "one-a"
    assert "layers packed in 4bit" in (folder / "README.md").read_text()
    texts = ["the crew was lovely", "the meal was awful and poor"]
    found = loaded.logits(texts)
    torch.testing.assert_close(loaded.logits(texts[:1]), found[:1], rtol=1e-4, atol=1e-5)
    card = json.loads((folder / "fedpl.json").read_text())
    (folder / "fedpl.json").write_text(json.dumps({**card, "quantized": None}))
    plain = fedpl.load(run, "one-a").logits(texts)
    assert 1e-5 < float((plain - found).abs().max()) < 0.3


def test_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"model\.quantized: .*pip install 'fedpl\[quantized\]'"):
        quantised.quantisation("4bit")
    assert quantised.quantisation(None) == {}
    assert logging.getLogger("bitsandbytes.autograd._functions").level == logging.ERROR


def test_methods_that_change_frozen_weights_are_refused_by_name() -> None:
    packed = {"model.quantized": "8bit"}
    assert problems(with_changes(Config(), packed)) == []
    for name in ("flora", "fedex"):
        (problem,) = problems(Config.of(name, **packed))
        assert problem.startswith(f"model.quantized: '{name}' changes the frozen weights, which are packed")
    (problem,) = problems(with_changes(Config(), packed | {"baselines": ["local", "flora"]}))
    assert "'flora'" in problem
