"""Pairs of texts: a cohort's clients get what each would get alone, token types and all."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from fedpl.config import LoraSettings
from fedpl.data import FederatedData, Pairs
from tests.training.conftest import texts
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
def people(people: FederatedData) -> FederatedData:
    """The clients, with a second text for each."""
    stream = random.Random(2)
    clients = []
    for client in people.clients:
        splits = {
            name: Pairs(split.texts, split.labels, texts(stream, len(split), 9))
            for name, split in (
                ("train", client.train),
                ("validation", client.validation),
                ("test", client.test),
            )
        }
        clients.append(replace(client, **splits))
    return replace(people, clients=tuple(clients))


@pytest.mark.parametrize(
    "settings", [{}, {"lora": LoraSettings(r=4, layers_to_transform=(1,)), "tokens_per_pass": 60}]
)
def test_cohort_equals_one_by_one(
    make_trainer: Callable[..., ClientTrainer], settings: dict[str, Any]
) -> None:
    trainer = make_trainer(**settings)
    expected, _ = one_by_one(trainer)
    found, _ = together(trainer)
    assert relative(found, expected) < TRAINED
    ids, vectors = trainer_clients(trainer), 3 * starts(trainer)
    cohorts = CohortTrainer(trainer)
    assert (cohorts.backend.engine.prefix is not None) == bool(settings)
    scores = [trainer.score(client, vectors[i], "test") for i, client in enumerate(ids)]
    assert cohorts.score(ids, vectors, "test") == scores
    assert cohorts.score(ids, vectors, "test") == scores, "as remembered by the prefix"


def test_the_model_is_told_which_text_is_which(make_trainer: Callable[..., ClientTrainer]) -> None:
    trainer = make_trainer()
    inputs = trainer.tokens["c0", "train"].collate([0, 1]).inputs
    other = {**inputs, "token_type_ids": torch.zeros_like(inputs["token_type_ids"])}
    model = trainer.model.eval()
    assert (model(**inputs) - model(**other)).abs().max() > 1e-4
