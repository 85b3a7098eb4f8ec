"""Cohorts on the default model: eight clients as different as they get, against PEFT one by one."""

from dataclasses import replace

import pytest
import torch

from fedpl.config import Config, PerClient
from fedpl.data import FederatedData
from fedpl.model.hardware import Hardware
from fedpl.training.session import Assignment
from tests.training.facade import ClientTrainer, CohortTrainer

EXAMPLES = (32, 24, 16, 32, 8, 28, 12, 20)
ONE_CLASS = (2, 5)


@pytest.mark.slow
def test_eight_clients_at_once_are_eight_clients_one_by_one() -> None:
    """Up to 20 AdamW steps in float32 with all of the model's dropout: 1e-4 of the adapters' lengths."""
    torch.set_num_threads(1)
    config = Config()
    data = config.data.load(0)
    clients = []
    for i, (client, number) in enumerate(zip(data.clients[:8], EXAMPLES, strict=True)):
        labels = (i % 2,) * number if i in ONE_CLASS else client.train.labels[:number]
        train = replace(client.train, texts=client.train.texts[:number], labels=labels)
        clients.append(replace(client, train=train))
    data = FederatedData(tuple(clients), data.classes)
    budgets = {data.ids[0]: PerClient(max_steps=11), data.ids[5]: PerClient(max_steps=3)}
    settings = replace(config.client, batch_size=4, epochs=10, max_steps=20, per_client=budgets)
    trainer = ClientTrainer(replace(config, client=settings), data, Hardware(torch.device("cpu"), "32-true"))
    initial = trainer.initial()
    alone = torch.empty(8, trainer.layout.size)
    fits = [trainer.fit(client, initial, alone[i], 1) for i, client in enumerate(data.ids)]
    cohorts = CohortTrainer(trainer)
    together = torch.empty_like(alone)
    seen = {}
    for places, theta, found in cohorts.fit([Assignment(client, initial) for client in data.ids], 1):
        together[places] = theta
        seen |= dict(zip(places, found, strict=True))
    assert [seen[i].steps for i in range(8)] == [fit.steps for fit in fits] == [11, *[20] * 4, 3, 20, 20]
    assert [seen[i].loss for i in range(8)] == pytest.approx([fit.loss for fit in fits], rel=1e-4)
    error = (together - alone).norm(dim=1) / alone.norm(dim=1)
    assert error.max() < 1e-4
    scores = cohorts.score(data.ids, together, "validation")
    assert scores == [trainer.score(client, alone[i], "validation") for i, client in enumerate(data.ids)]
