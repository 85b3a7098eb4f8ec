"""Numbers to predict: a cohort's clients get what each would get alone."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from fedpl.config import ClientConfig, Config, LoraSettings, ModelConfig
from fedpl.data import FederatedData, Rated
from fedpl.tasks import Regression
from tests.training.conftest import CPU
from tests.training.facade import ClientTrainer, CohortTrainer
from tests.training.stacked.test_cohorts import (
    TRAINED,
    one_by_one,
    relative,
    starts,
    together,
    trainer_clients,
)


@pytest.fixture
def trainer(small_model: Path, people: FederatedData) -> ClientTrainer:
    stream = random.Random(5)
    clients = []
    for client in people.clients:
        splits = {
            name: Rated(
                split.texts, (0,) * len(split), values=tuple(stream.uniform(-4, 4) for _ in split.texts)
            )
            for name, split in (
                ("train", client.train),
                ("validation", client.validation),
                ("test", client.test),
            )
        }
        clients.append(replace(client, **splits))
    config = Config(
        task=Regression(low=-4.0, high=4.0),
        model=ModelConfig(path=str(small_model)),
        lora=LoraSettings(r=4),
        client=ClientConfig(batch_size=4, epochs=2, model_dropout=False),
    )
    return ClientTrainer(config, replace(people, clients=tuple(clients), classes=()), CPU)


def test_cohort_equals_one_by_one(trainer: ClientTrainer) -> None:
    expected, reports = one_by_one(trainer)
    found, fits = together(trainer)
    assert relative(found, expected) < TRAINED
    assert [fit.loss for fit in fits] == pytest.approx([fit.loss for fit in reports], rel=TRAINED)
    ids, vectors = trainer_clients(trainer), 3 * starts(trainer)
    for place, own in enumerate(CohortTrainer(trainer).score(ids, vectors, "test")):
        assert own == pytest.approx(trainer.score(ids[place], vectors[place], "test"), rel=1e-4, abs=1e-5)
