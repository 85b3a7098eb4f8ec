"""Images: a cohort's clients get what each would get alone; remembered states are those computed anew."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import ImageFolder
from fedpl.model.hardware import Hardware
from fedpl.tasks import ImageClassification
from tests import tiny_images
from tests.training.conftest import CPU
from tests.training.facade import ClientTrainer, CohortTrainer
from tests.training.stacked.test_cohorts import (
    TRAINED,
    one_by_one,
    relative,
    starts,
    together,
    trained,
    trainer_clients,
)

pytestmark = pytest.mark.usefixtures("image_cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip archive with clients of different sizes."""
    files = tiny_images.made(("art", "sketch"), 6)
    files |= {name: content for name, content in tiny_images.made(("small",), 3).items()}
    return tiny_images.zipped(tmp_path_factory.mktemp("images") / "images.zip", files)


def make(
    folder: Path, model: Path, hardware: Hardware = CPU, lora: LoraSettings | None = None, **client: Any
) -> ClientTrainer:
    config = Config(
        task=ImageClassification(),
        data=ImageFolder(path=str(folder)),
        model=ModelConfig(path=str(model)),
        lora=lora or LoraSettings(r=4),
        client=ClientConfig(**{"batch_size": 4, "epochs": 2, "model_dropout": False, **client}),
    )
    return ClientTrainer(config, config.data.load(0), hardware)


@pytest.mark.parametrize("family", ["vit", "clip", "siglip"])
def test_cohort_equals_one_by_one_and_the_prefix_changes_no_bit(
    folder: Path, tmp_path: Path, family: str
) -> None:
    """With the states of the first two blocks remembered."""
    model = tiny_images.tower(tmp_path / "model", family)
    trainer = make(folder, model, lora=LoraSettings(r=4, layers_to_transform=(2,)))
    expected, reports = one_by_one(trainer)
    cohorts = CohortTrainer(trainer)
    assert cohorts.engine.prefix is not None
    found, fits = trained(cohorts)
    assert relative(found, expected) < TRAINED
    assert [fit.loss for fit in fits] == pytest.approx([fit.loss for fit in reports], rel=TRAINED)
    assert cohorts.engine.prefix.used > 0
    plain, _ = together(
        make(folder, model, lora=LoraSettings(r=4, layers_to_transform=(2,)), prefix_cache_mb=0)
    )
    assert torch.equal(found, plain)
    ids, vectors = trainer_clients(trainer), 3 * starts(trainer)
    scores = cohorts.score(ids, vectors, "test")
    assert scores == [trainer.score(client, vectors[i], "test") for i, client in enumerate(ids)]


@pytest.mark.parametrize(
    ("settings", "precision", "bound"),
    [
        (
            {"tokens_per_pass": 11, "model_dropout": True, "gradient_checkpointing": True},
            "32-true",
            TRAINED,
        ),
        ({}, "bf16-mixed", 0.1),
    ],
    ids=["many-passes-checkpoint", "bf16"],
)
def test_cohort_equals_one_by_one(
    folder: Path, tmp_path: Path, settings: dict[str, Any], precision: str, bound: float
) -> None:
    hardware = Hardware(torch.device("cpu"), precision)
    model = tiny_images.tower(tmp_path / "model", "vit")
    trainer = make(folder, model, hardware, LoraSettings(r=4, dropout=0.2), **settings)
    expected, _ = one_by_one(trainer)
    found, _ = together(trainer)
    assert relative(found, expected) < bound
