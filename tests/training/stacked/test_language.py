"""Cohorts of language models are their clients trained one by one; logits are made where answers are."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import ClientData, Dialogues, FederatedData
from fedpl.data.dialogues import Example, dialogues, exchange
from fedpl.model.hardware import Hardware
from fedpl.tasks import Choice, Generation, Task
from fedpl.training.session import Assignment
from tests import bounds
from tests.tiny_language import language_model
from tests.training.facade import ClientTrainer, CohortTrainer

CPU = Hardware(torch.device("cpu"), "32-true")
TRAINED = bounds.trained(steps=20)
SIZES = (5, 23, 12, 1, 31, 9, 16, 3)
OPTIONS = ("yes", "no", "it is not possible")


def split(stream: random.Random, client: str, size: int) -> Dialogues:
    """Prompts and answers of unequal lengths."""
    rows = []
    for _ in range(size):
        prompt = "".join(stream.choices("abcdef ", k=stream.randint(3, 25)))
        rows.append(Example(prompt, messages=exchange(prompt, stream.choice(OPTIONS)), options=OPTIONS))
    return dialogues(rows, range(size), client)


@pytest.fixture(scope="module")
def talkers() -> FederatedData:
    """Eight clients of one example to thirty-one."""
    stream = random.Random(0)
    clients = [
        ClientData(f"c{i}", *(split(stream, f"c{i}", number) for number in (size, 2, 4)))
        for i, size in enumerate(SIZES)
    ]
    return FederatedData(tuple(clients), ())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("llama"), begins=True)


@pytest.fixture
def make(llama: Path, talkers: FederatedData) -> Callable[..., ClientTrainer]:
    def trainer(task: Task | None = None, hardware: Hardware = CPU, **client: Any) -> ClientTrainer:
        defaults = ClientConfig(batch_size=4, epochs=20, max_steps=20, model_dropout=False, cohort_size=8)
        config = Config(
            task=task or Generation("Q: {prompt} A: "),
            model=ModelConfig(path=str(llama), max_length=64),
            lora=LoraSettings(r=2, dropout=0.1),
            client=replace(defaults, **client),
        )
        return ClientTrainer(config, talkers, hardware)

    return trainer


def trained(trainer: CohortTrainer, talkers: FederatedData, **options: Any) -> dict[str, torch.Tensor]:
    start = trainer.trainer.initial()
    found = {}
    for places, theta, _ in trainer.fit([Assignment(c, start) for c in talkers.ids], 1, **options):
        found |= {talkers.ids[place]: row for place, row in zip(places, theta, strict=True)}
    return found


@pytest.mark.parametrize("task", [Generation("Q: {prompt} A: "), Choice()], ids=["generation", "choice"])
def test_a_cohort_is_its_clients_one_by_one(
    task: Task, make: Callable[..., ClientTrainer], talkers: FederatedData
) -> None:
    """Twenty steps with dropout, eight unequal clients, scores and losses included."""
    alone = make(task)
    together = CohortTrainer(alone)
    start = alone.initial()
    found = trained(together, talkers)
    for client in talkers.ids:
        single = torch.empty_like(start)
        fit = alone.fit(client, start, single, 1)
        assert fit.steps == 20
        moved = (single - start).norm()
        assert moved > 1e-2
        assert (found[client] - single).norm() / moved < TRAINED
    rows = torch.stack([found[client] for client in talkers.ids])
    scores = together.score(talkers.ids, rows, "test")
    for client, row, score in zip(talkers.ids, rows, scores, strict=True):
        assert alone.score(client, row, "test") == pytest.approx(score, rel=1e-4)
    losses = together.losses(talkers.ids, rows[:1])[:, 0]
    assert losses.tolist() == pytest.approx([alone.loss(c, rows[0]) for c in talkers.ids], rel=1e-4)
