"""A cohort's clients get what each would get alone from PEFT."""

import gc
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import fedpl.training.stacked.backend as cohorts_module
from fedpl.config import LoraSettings
from fedpl.errors import UserError
from fedpl.model.hardware import Hardware
from fedpl.objectives import FedRep
from fedpl.training.session import Assignment, Fit
from fedpl.training.stacked.module import CohortModule
from tests import bounds
from tests.training.facade import ClientTrainer, CohortTrainer

Maker = Callable[..., ClientTrainer]


def one_by_one(trainer: ClientTrainer) -> tuple[Tensor, list[Fit]]:
    """Task vectors and reports of the plain PEFT path."""
    start = starts(trainer)
    theta = torch.empty_like(start)
    ids = trainer_clients(trainer)
    fits = [trainer.fit(c, start[i], theta[i], 1) for i, c in enumerate(ids)]
    return theta - start, fits


def together(trainer: ClientTrainer, clients: list[int] | None = None) -> tuple[Tensor, list[Fit]]:
    """The same, of these clients, in cohorts."""
    return trained(CohortTrainer(trainer), clients)


def trained(cohorts: CohortTrainer, clients: list[int] | None = None) -> tuple[Tensor, list[Fit]]:
    trainer = cohorts.trainer
    start, ids = starts(trainer), trainer_clients(trainer)
    clients = clients or list(range(len(ids)))
    tau = torch.full((len(clients), trainer.layout.size), torch.nan)
    fits: list[Fit | None] = [None] * len(clients)
    for places, theta, found in cohorts.fit([Assignment(ids[i], start[i]) for i in clients], 1):
        for place, row, fit in zip(places, theta, found, strict=True):
            assert fits[place] is None
            tau[place], fits[place] = row - start[clients[place]], fit
    return tau, [fit for fit in fits if fit is not None]


def trainer_clients(trainer: ClientTrainer) -> list[str]:
    return list(dict.fromkeys(client for client, _ in trainer.tokens))


def starts(trainer: ClientTrainer) -> Tensor:
    """A starting point of each client's own, with B ≠ 0, so that A learns from the first step."""
    noise = torch.Generator().manual_seed(3)
    shape = (len(trainer_clients(trainer)), trainer.layout.size)
    return 0.1 * torch.randn(shape, generator=noise)


TRAINED = bounds.trained(steps=20)


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 20, "epochs": 8},
        {"optimizer": "sgd", "lr": 0.05, "head_lr": 0.1},
        {"optimizer": "sgd", "momentum": 0.0, "lr": 0.5, "gradient_clip": 0.0},
        {"model_dropout": True, "lora": LoraSettings(r=4, dropout=0.2)},
        {"model_dropout": False, "lora": LoraSettings(r=4, dropout=0.2)},
        {"model_dropout": True, "gradient_checkpointing": True, "lora": LoraSettings(r=4, dropout=0.2)},
        {"tokens_per_pass": 20},
        {"lora": LoraSettings(r=4, layers_to_transform=(1,)), "tokens_per_pass": 60},
        {"schedule": "cosine", "warmup": 2.0, "objective": FedRep()},
        {"schedule": "linear", "schedule_over": "run", "warmup": 0.1, "optimizer": "sgd", "lr": 0.05},
    ],
    ids=[
        *("adamw", "momentum", "sgd", "dropout", "lora-dropout", "checkpoint", "many-passes", "prefix"),
        *("cosine-in-phases", "linear-over-the-run"),
    ],
)
def test_cohort_equals_one_by_one(make_trainer: Maker, settings: dict[str, Any]) -> None:
    trainer = make_trainer(**settings)
    expected, reports = one_by_one(trainer)
    found, fits = together(trainer)
    assert relative(found, expected) < TRAINED
    assert len({fit.steps for fit in fits}) > 1
    assert [fit.steps for fit in fits] == [fit.steps for fit in reports]
    assert [fit.loss for fit in fits] == pytest.approx([fit.loss for fit in reports], rel=TRAINED)


def test_scores_equal_one_by_one(make_trainer: Maker) -> None:
    trainer = make_trainer()
    ids, vectors = trainer_clients(trainer), 3 * starts(trainer)
    found = CohortTrainer(trainer).score(ids, vectors, "test")
    assert found == [trainer.score(client, vectors[i], "test") for i, client in enumerate(ids)]
    assert len({tuple(scores.values()) for scores in found}) > 1


@pytest.mark.parametrize("size", [2, 3, 8])
def test_result_does_not_depend_on_company(make_trainer: Maker, size: int) -> None:
    settings = {"model_dropout": True, "lora": LoraSettings(r=4, dropout=0.2)}
    reference, _ = together(make_trainer(**settings))
    found, _ = together(make_trainer(cohort_size=size, **settings), [6, 1, 4])
    assert relative(found, reference[[6, 1, 4]]) < TRAINED


def test_dropout_matters(make_trainer: Maker) -> None:
    plain, _ = together(make_trainer(), [1, 4])
    dropped, _ = together(make_trainer(model_dropout=True), [1, 4])
    assert relative(dropped, plain) > 0.01


@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager(make_trainer: Maker, captured: Callable[..., Any]) -> None:
    expected, _ = together(make_trainer(max_steps=3), [1, 4])
    with captured() as compiled:
        found, _ = together(make_trainer(max_steps=3, compile=True), [1, 4])
    assert compiled
    assert relative(found, expected) < TRAINED


def test_bf16_stays_near_float32(make_trainer: Maker) -> None:
    exact, _ = together(make_trainer())
    hardware = Hardware(torch.device("cpu"), "bf16-mixed")
    alone, _ = one_by_one(make_trainer(hardware=hardware))
    found, _ = together(make_trainer(hardware=hardware))
    cosine = torch.nn.functional.cosine_similarity
    assert found.dtype == torch.float32
    assert float(cosine(found, exact).min()) > 0.9
    # As near as PEFT itself comes in this arithmetic.
    assert relative(found, exact) < 1.5 * relative(alone, exact) + TRAINED
    assert relative(found, exact) > TRAINED


def test_a_step_that_fails_leaves_no_thread(make_trainer: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And an error while a step is prepared is the training's error."""

    def running() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]

    def fail(*_: Any) -> None:
        raise RuntimeError("bad label")

    seen = []
    step = CohortModule.training_step

    def watched(*given: Any) -> None:
        seen.append(running())
        step(*given)

    monkeypatch.setattr(CohortModule, "training_step", watched)
    together(make_trainer(max_steps=3), [1, 4])
    assert len(seen) == 3
    assert len(seen[0]) == 1
    assert running() == []
    monkeypatch.setattr(CohortModule, "training_step", fail)
    with pytest.raises(RuntimeError, match="bad label"):
        together(make_trainer(max_steps=3), [1, 4])
    assert running() == []
    trainer = make_trainer(max_steps=3)
    trainer.tokens["c1", "train"].targets = torch.zeros(2, dtype=torch.long)  # an example without a target
    with pytest.raises(IndexError):
        together(trainer, [1, 4])
    assert running() == []


def test_out_of_memory_halves_cohorts_and_loses_nothing(
    make_trainer: Maker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = together(make_trainer())
    fit, sizes = cohorts_module.fit_cohort, []

    def limited(engine: Any, theta: Tensor, *rest: Any) -> list[float]:
        sizes.append(len(theta))
        losses = fit(engine, theta, *rest)  # the failure comes late: the rows are half trained
        if len(theta) > 3:
            raise torch.OutOfMemoryError
        return losses

    monkeypatch.setattr(cohorts_module, "fit_cohort", limited)
    cohorts = CohortTrainer(make_trainer(tokens_per_pass=200))
    with caplog.at_level(logging.WARNING):
        found, fits = trained(cohorts)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert (cohorts.size, cohorts.limits.tokens) == (2, 50)
    assert "out of memory with 8 clients at once: going on with 4" in caplog.text
    assert len(fits) == 8
    assert relative(found, expected) < TRAINED


def test_out_of_memory_while_scoring(make_trainer: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tokens_per_pass=200)
    cohorts = CohortTrainer(trainer)
    ids, vectors = trainer_clients(trainer), 3 * starts(trainer)
    expected = cohorts.score(ids, vectors, "test")
    call = cohorts.engine.__class__.__call__

    def limited(self: Any, part: Any, cache: bool) -> Tensor:
        if part.inputs["input_ids"].numel() > 60:
            raise torch.OutOfMemoryError
        return call(self, part, cache)

    monkeypatch.setattr(cohorts.engine.__class__, "__call__", limited)
    assert cohorts.score(ids, vectors, "test") == expected
    assert cohorts.limits.tokens == 50


def test_out_of_memory_with_one_client_is_an_error(
    make_trainer: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise torch.OutOfMemoryError

    cohorts = CohortTrainer(make_trainer())
    monkeypatch.setattr(cohorts_module, "fit_cohort", never)
    with pytest.raises(UserError, match="gradient_checkpointing"):
        trained(cohorts)


def test_plain_model_is_left_alone(make_trainer: Maker) -> None:
    trainer = make_trainer()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    cohorts = CohortTrainer(trainer)
    trained(cohorts)
    after = trainer.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    frozen = {p.data_ptr() for p in trainer.model.parameters() if not p.requires_grad}
    assert {p.data_ptr() for p in cohorts.engine.stack.model.parameters()} <= frozen


def test_prefix_is_computed_once_and_within_its_bound(make_trainer: Maker) -> None:
    lora = LoraSettings(r=4, layers_to_transform=(1,))
    trainer = make_trainer(lora=lora)
    cohorts = CohortTrainer(trainer)
    prefix = cohorts.engine.prefix
    assert prefix is not None
    rows: list[int] = []
    attention = cohorts.engine.stack.model.encoder.encoder.layer[0].attention
    attention.register_forward_hook(lambda module, given, result: rows.append(len(given[0])))
    trained(cohorts)
    trained(cohorts)
    tokens = [trainer.tokens[client, "train"] for client in trainer_clients(trainer)]
    assert sum(rows) == sum(map(len, tokens))
    assert prefix.used == sum(len(ids) for part in tokens for ids in part.ids) * 32 * 4

    assert prefix._kept is not None
    assert len(prefix._kept) == sum(len(part.tokens) for part in trainer.tokens.values()), (
        "room for all, no more"
    )
    prefix.limit = prefix.used + 32 * 4 * 10
    expected = [trainer.score(c, starts(trainer)[i], "test") for i, c in enumerate(trainer_clients(trainer))]
    for _ in range(2):
        found = cohorts.score(trainer_clients(trainer), starts(trainer), "test")
        assert found == expected
    assert prefix.used <= prefix.limit


def test_prefix_is_not_remembered_under_dropout(make_trainer: Maker) -> None:
    lora = LoraSettings(r=4, layers_to_transform=(1,))
    trainer = make_trainer(lora=lora, model_dropout=True)
    expected, _ = one_by_one(trainer)
    cohorts = CohortTrainer(trainer)
    found, _ = trained(cohorts)
    assert relative(found, expected) < TRAINED
    assert cohorts.engine.prefix is not None
    assert cohorts.engine.prefix.used == 0


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_finished_cohort_leaves_no_matrices_behind(make_trainer: Maker) -> None:
    cohorts = CohortTrainer(make_trainer(max_steps=1))
    size = cohorts.trainer.layout.size

    def held() -> int:
        return sum(type(found) is Tensor and found.shape == (8, size) for found in gc.get_objects())

    gc.disable()  # Trainer and module refer to each other: only the collector would find them
    try:
        trained(cohorts)
        before = held()
        trained(cohorts)
        assert held() == before
    finally:
        gc.enable()
