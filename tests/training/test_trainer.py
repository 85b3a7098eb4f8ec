"""Local training against a plain PEFT loop written here."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import Columns, TextFiles
from fedpl.errors import UserError
from fedpl.model.adapter import flatten, layout_of
from fedpl.model.base import add_adapter, load_base
from fedpl.model.hardware import Hardware, choose_hardware
from fedpl.randomness import derive_seed
from fedpl.training import fitting
from fedpl.training.dropout import StreamDropout, row_keys
from fedpl.training.session import Assignment
from tests.training.facade import ClientTrainer, CohortTrainer

CPU = Hardware(torch.device("cpu"), "32-true")


@pytest.fixture
def config(small_model: Path, small_table: Path) -> Config:
    return Config(
        seed=3,
        data=TextFiles((str(small_table),), Columns(split="split")),
        model=ModelConfig(path=str(small_model)),
        lora=LoraSettings(r=2, dropout=0.1),
        client=ClientConfig(batch_size=5, epochs=2),
    )


def make(config: Config) -> ClientTrainer:
    return ClientTrainer(config, config.data.load(config.seed), CPU)


def tuned(trainer: ClientTrainer, client: str, round: int = 1) -> torch.Tensor:
    out = torch.empty(trainer.layout.size)
    start = torch.empty(trainer.layout.size)
    model = add_adapter(
        load_base(trainer.config.model, 2), trainer.config.lora, "", init_seed(trainer.config)
    )
    flatten(model, trainer.layout, start)
    trainer.fit(client, start, out, round)
    return out


def init_seed(config: Config) -> int:
    return derive_seed(config.seed, "init")


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_one_client_one_round_equals_plain_peft_fine_tuning(config: Config, clip: float) -> None:
    config = dataclasses.replace(config, client=dataclasses.replace(config.client, gradient_clip=clip))
    trainer = make(config)
    tokens = trainer.tokens["one-a", "train"]

    model = add_adapter(load_base(config.model, 2), config.lora, "", init_seed(config)).train()
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if "lora" in name], "lr": config.client.lr},
        {"params": [p for name, p in named if "lora" not in name], "lr": config.client.head_lr},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=config.client.weight_decay)
    order = torch.Generator().manual_seed(derive_seed(3, "order", 1, "one-a"))
    stream = derive_seed(3, "dropout", 1, "one-a")
    step = 0
    for _ in range(2):
        for indices in torch.randperm(len(tokens), generator=order).split(5):
            batch = tokens.collate(indices.tolist())
            optimiser.zero_grad()
            with StreamDropout(row_keys(stream, step, len(indices))):
                logits = model(**batch.inputs)
            step += 1
            torch.nn.functional.cross_entropy(logits, batch.targets).backward()
            if clip:
                torch.nn.utils.clip_grad_norm_([p for _, p in named], clip)
            optimiser.step()
    expected = torch.empty(trainer.layout.size)
    flatten(model, layout_of(model), expected)

    assert torch.equal(tuned(trainer, "one-a"), expected)


def test_every_client_is_trained_not_only_the_first(config: Config) -> None:
    trainer = make(config)
    start = trainer.initial()
    out = torch.empty_like(start)
    for client in ("one-a", "two-a", "three-b"):
        fit = trainer.fit(client, start, out, 1)
        assert fit.steps == 8
        assert (out - start).abs().max() > 1e-3


def test_training_one_client_leaves_no_trace_in_the_next(config: Config) -> None:
    trainer = make(config)
    alone = tuned(make(config), "two-a")
    tuned(trainer, "one-a")
    torch.rand(7)
    assert torch.equal(tuned(trainer, "two-a"), alone)


def test_round_and_client_change_the_streams(config: Config) -> None:
    trainer = make(config)
    assert not torch.equal(tuned(trainer, "one-a", 1), tuned(trainer, "one-a", 2))


def test_model_dropout_is_active_only_when_asked_for(config: Config) -> None:
    def losses(dropout: bool) -> float:
        client = dataclasses.replace(config.client, model_dropout=dropout, epochs=1, batch_size=16)
        quiet = dataclasses.replace(config, client=client, lora=LoraSettings(r=2))
        trainer = make(quiet)
        start = trainer.initial()
        first = trainer.fit("one-a", start, torch.empty_like(start), 1).loss
        second = trainer.fit("one-a", start, torch.empty_like(start), 2).loss
        return abs(first - second)

    # One batch holds all examples, so that rounds differ by their dropout masks alone.
    assert losses(False) < 1e-6 < losses(True)


def test_scores_are_those_of_the_given_vector(config: Config) -> None:
    trainer = make(config)
    always_yes = torch.zeros(trainer.layout.size)
    bias = next(entry for entry in trainer.layout.entries if entry.name == "head.bias")
    always_yes[bias.start + 1] = 1.0
    scores = trainer.score("one-a", always_yes, "test")
    assert scores["accuracy"] == 0.5
    assert scores["macro_f1"] == pytest.approx(1 / 3)


def test_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_hardware("auto", "auto") == CPU
    with pytest.raises(UserError, match="torch sees none"):
        choose_hardware("gpu", "auto")
    assert choose_hardware("auto", "bf16-mixed") == Hardware(torch.device("cpu"), "bf16-mixed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    for native, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, n=native: n)
        assert choose_hardware("auto", "auto") == Hardware(torch.device("cuda", 0), precision)
    assert choose_hardware("cpu", "auto") == CPU


def test_any_gpu_trains_not_only_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    hardware = choose_hardware("auto", "32-true")
    asked: list[dict[str, Any]] = []

    def trainer(**options: Any) -> Any:
        asked.append(options)
        return SimpleNamespace(fit=lambda *_: None)

    monkeypatch.setattr(fitting.lightning, "Trainer", trainer)
    for each in (hardware, CPU):
        fitting.fit_once(lightning.LightningModule(), DataLoader([0]), each)  # type: ignore[arg-type]
    assert [(options["accelerator"], options["devices"]) for options in asked] == [("gpu", [3]), ("cpu", 1)]


def test_what_torch_keeps_is_given_back_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append(True))
    CPU.give_back()
    assert not given
    Hardware(torch.device("cuda", 1), "32-true").give_back()
    assert given


def test_lightning_does_not_move_the_model(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    known = []

    def fit(module: lightning.LightningModule, *rest: Any) -> None:
        known.extend(module.parameters())
        module.losses.append(0.0)

    monkeypatch.setattr("fedpl.training.alone.backend.fit_once", fit)
    trainer = make(config)
    trainer.fit("one-a", trainer.initial(), torch.empty(trainer.layout.size), round=1)
    assert not known


def test_frozen_layers_in_bf16_change_nothing_under_autocast(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear layers alone are halved: what autocast would otherwise do to them in every pass."""

    def results() -> tuple[ClientTrainer, torch.Tensor]:
        trainer = ClientTrainer(config, config.data.load(config.seed), Hardware(CPU.device, "bf16-mixed"))
        out = torch.empty(4, trainer.layout.size)
        start = trainer.initial()
        trainer.fit("one-a", start, out[0], 1)
        work = [Assignment(client, start) for client in ("one-a", "three-b")]
        for members, theta, _ in CohortTrainer(trainer).fit(work, 1):
            out[[1 + i for i in members]] = theta
        out[3] = trainer.loss("one-a", out[0])
        return trainer, out

    halved, found = results()
    kept = {name for name, p in halved.model.named_parameters() if p.dtype == torch.float32}
    half = {name for name, p in halved.model.named_parameters() if p.dtype == torch.bfloat16}
    assert half
    assert all(".encoder." in name and "lora" not in name and "Norm" not in name for name in half)
    assert any("word_embeddings" in name for name in kept)
    monkeypatch.setattr("fedpl.model.foundation.halve_frozen", lambda model: None)
    whole, expected = results()
    assert {p.dtype for p in whole.model.parameters()} == {torch.float32}
    assert torch.equal(found, expected)
