"""Cohorts of language models are their clients trained one by one; logits are made where answers are."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import ClientData, Dialogues, FederatedData
from fedpl.data.dialogues import Example, dialogues, exchange
from fedpl.model.hardware import Hardware
from fedpl.objectives import FedDPA
from fedpl.objectives.models import Duo, stack_models
from fedpl.tasks import Choice, Generation, Task
from fedpl.tasks.decoding import DecodingConfig
from fedpl.training.duo import shares
from fedpl.training.session import Assignment
from fedpl.training.stacked.packing import Limits, steps
from tests import bounds
from tests.tiny_language import language_model
from tests.training.facade import ClientTrainer, CohortTrainer

CPU = Hardware(torch.device("cpu"), "32-true")
LORA = LoraSettings(r=2, dropout=0.1)
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
    def trainer(task: Task | None = None, lora: LoraSettings = LORA, **client: Any) -> ClientTrainer:
        defaults = ClientConfig(batch_size=4, epochs=20, max_steps=20, model_dropout=False, cohort_size=8)
        config = Config(
            task=task or Generation("Q: {prompt} A: "),
            model=ModelConfig(path=str(llama), max_length=64),
            lora=lora,
            client=replace(defaults, **client),
        )
        return ClientTrainer(config, talkers, CPU)

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


def gradients(trainer: ClientTrainer, data: FederatedData, tokens: int) -> torch.Tensor:
    """Every client's gradient on all its training data, in passes of at most so many tokens."""
    cohort = CohortTrainer(trainer)
    engine, partitions = cohort.engine, trainer.partitions
    theta = 0.3 * torch.randn(len(data.ids), trainer.layout.size, generator=torch.Generator().manual_seed(2))
    gradient = torch.zeros_like(theta)
    engine.stack.bind(theta, gradient)
    learners = [partitions.learner(client, 1) for client in data.ids]
    whole = [own._replace(order=[list(range(len(own.examples)))]) for own in learners]
    ((passes, _),) = steps(whole, Limits(tokens))
    for part in passes:
        losses = trainer.config.task.losses(engine(part, cache=False), part.targets)
        (losses * part.weight).sum().backward()
    return gradient


def test_gradients_do_not_depend_on_how_a_step_is_cut(
    make: Callable[..., ClientTrainer], talkers: FederatedData
) -> None:
    trainer = make()
    trainer.model.eval()
    one, several = (gradients(trainer, talkers, tokens) for tokens in (10**6, 90))
    far = (one - several).norm(dim=1) / one.norm(dim=1)
    assert far.max() < 1e-6


def test_the_loss_is_the_mean_over_answer_tokens(
    make: Callable[..., ClientTrainer], talkers: FederatedData
) -> None:
    """From logits at all positions of each example by itself, with transformers' own labels."""
    trainer = make()
    client = talkers.clients[1]
    examples = trainer.partitions.examples[client.id, "train"]
    model = trainer.model.get_base_model().encoder
    total = number = 0.0
    for i in range(len(examples)):
        batch = examples.collate([i]).inputs
        labels = batch["input_ids"].masked_fill(~batch["learned"], -100)
        count = int(batch["learned"].sum())
        with torch.no_grad():
            total += float(model(input_ids=batch["input_ids"], labels=labels).loss) * count
        number += count
    assert trainer.loss(client.id, trainer.initial()) == pytest.approx(total / number, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"gradient_checkpointing": True}, {"lora": LoraSettings(r=2, layers_to_transform=(1,), dropout=0.1)}],
    ids=["checkpoint", "prefix"],
)
def test_what_saves_time_or_memory_changes_nothing(
    settings: dict[str, Any], make: Callable[..., ClientTrainer], talkers: FederatedData
) -> None:
    plain = {**settings, "gradient_checkpointing": False, "prefix_cache_mb": 0}
    expected, found = (
        trained(CohortTrainer(make(max_steps=3, **kind)), talkers) for kind in (plain, settings)
    )
    for client, row in found.items():
        torch.testing.assert_close(row, expected[client], rtol=1e-4, atol=1e-6)


def test_bfloat16_without_a_wider_copy(llama: Path, talkers: FederatedData, tmp_path: Path) -> None:
    """Matrices and table of a bfloat16 file stay as they are, and cohorts train on them."""
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(tmp_path)
    config = Config(
        task=Generation(),
        model=ModelConfig(path=str(tmp_path), max_length=96),
        lora=LoraSettings(r=2),
        client=ClientConfig(batch_size=4, max_steps=3, lr=1e-2),
    )
    trainer = ClientTrainer(config, talkers, Hardware(torch.device("cpu"), "bf16-mixed"))
    frozen = {name: p.dtype for name, p in trainer.model.named_parameters() if not p.requires_grad}
    assert {dtype for name, dtype in frozen.items() if "norm" not in name} == {torch.bfloat16}
    start = trainer.initial()
    found = trained(CohortTrainer(trainer), talkers)
    single = torch.empty_like(start)
    trainer.fit("c1", start, single, 1)
    moved = single - start
    assert (found["c1"] - single).norm() < 0.2 * moved.norm()
    assert trainer.loss("c1", single) < trainer.loss("c1", start)


def test_the_gate_of_two_adapters_looks_at_the_state_before_the_answer(
    make: Callable[..., ClientTrainer], talkers: FederatedData
) -> None:
    alone = make(max_steps=3, objective=FedDPA(variant="F"))
    together = CohortTrainer(alone)
    start = alone.initial() + 0.05
    ids = talkers.ids[:3]
    fits = {}
    for places, _, found in together.fit([Assignment(c, start) for c in ids], 1, FedDPA(variant="F")):
        fits |= {ids[place]: fit for place, fit in zip(places, found, strict=True)}
    duos = [fits[client].tuned for client in ids]
    scores = together.score(ids, stack_models(duos), "test")
    for client, duo, score in zip(ids, duos, scores, strict=True):
        assert alone.score(client, duo, "test") == pytest.approx(score, rel=1e-4)


def test_two_adapters_write_by_the_gate_of_the_examples(
    make: Callable[..., ClientTrainer], talkers: FederatedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Generation("Q: {prompt} A: ", decoding=DecodingConfig(max_new_tokens=5))
    alone = make(task, max_steps=3, objective=FedDPA(variant="F"))
    together, ids = CohortTrainer(alone), talkers.ids[:3]
    local, common = torch.randn(2, 3, alone.layout.size, generator=torch.Generator().manual_seed(0)) / 2
    duo = Duo(local, common, 1.0, 4)
    gates: list[float] = []

    def seen(*arguments: Any) -> torch.Tensor:
        found = shares(*arguments)
        gates.extend(found.tolist())
        return found

    for way in ("alone", "stacked"):
        monkeypatch.setattr(f"fedpl.training.{way}.backend.shares", seen)
    written = alone.worker.written(ids, duo, "test")
    of_prompts = sorted(gates)
    gates.clear()
    list(alone.backend.answers(ids, duo, "test"))
    assert sorted(gates) == pytest.approx(of_prompts, rel=1e-5)
    assert 0 <= of_prompts[0] < of_prompts[-1] <= 1
    gates.clear()
    assert alone.partitions.prompts is not None
    alone.partitions.prompts.written.clear()  # else both remember it
    assert together.worker.written(ids, duo, "test") == written
    assert sorted(gates) == pytest.approx(of_prompts, rel=1e-4)
    assert together.worker.written(ids, local, "test") != written
    assert together.worker.written(ids, common, "test") != written
