"""What a run is going to take, before it: steps, passes, memory, seconds. Nothing is trained."""

import time
from typing import NamedTuple

import torch

from fedpl.config import Config
from fedpl.objectives import Plain
from fedpl.sampling import share_of
from fedpl.training.stacked.backend import Stacked
from fedpl.training.stacked.packing import steps
from fedpl.training.worker import Worker

_ENOUGH = 2.0  # seconds of a forward pass, after which its rate is known
_BACKWARD = 3.0  # a step in forward passes: backward takes about two


class Memory(NamedTuple):
    """Bytes.

    Attributes:
        model: Frozen weights as they are held.
        server: Task vectors and aggregates, with those of a shared first round.
        cohort: Adapters, gradients and moments of the clients that train together.
        activations: Kept for the backward pass of one pass; None: not known.
    """

    model: int
    server: int
    cohort: int
    activations: int | None


class Forecast(NamedTuple):
    """What a run is going to take.

    Attributes:
        methods: How many run on the same clients: the method and its baselines.
        asked: Clients of a round.
        steps: Optimiser steps of all clients in round 1 with everybody, in the main phase.
        passes: Passes through the model that these steps take; None: one for each step.
        cohort: Clients that train together, at most.
        tokens: Training tokens of these steps.
        memory: What is held.
        seconds: Training and scoring of all rounds and methods, from `rate`; without decoding.
        rate: Tokens a second of a forward pass, measured.
        more: Whether clients train in more phases than the main one, or on halves of their examples too,
            which comes on top.
    """

    methods: int
    asked: int
    steps: int
    passes: int | None
    cohort: int
    tokens: int
    memory: Memory
    seconds: float
    rate: float
    more: bool


def forecast(config: Config, worker: Worker) -> Forecast:
    """Count a run's first round, and time a forward pass of its first clients.

    Args:
        config: The run.
        worker: With all clients.
    """
    backend, parts = worker.backend, worker.partitions
    clients = list(dict.fromkeys(client for client, _ in parts.examples))
    groups = worker.groups(clients, 1)
    orders = {client: parts.order(client, 1) for client in clients}
    lengths = {client: parts.examples[client, "train"].lengths for client in clients}
    tokens = sum(lengths[c][i] for c, order in orders.items() for batch in order for i in batch)
    passes = None
    if isinstance(backend, Stacked):
        passes = 0
        for members in groups:
            learners = sorted((parts.learner(c, 1) for c in members), key=lambda one: -len(one.order))
            passes += sum(len(step.passes) for step in steps(learners, backend.limits))
    rate = _rate(worker, groups[0])
    asked, methods = share_of(clients, config.participation), config.methods
    held = {
        split: sum(sum(parts.examples[client, split].lengths) for client in clients)
        for split in ("validation", "test")
    }
    # Both models are scored: θ̄ of all clients, θ of those who trained.
    every = config.evaluation.every
    scored = 2 * held["validation"] * (config.rounds // every if every else 0)
    trained = _BACKWARD * tokens * config.rounds * asked / len(clients)
    if config.client.guard == "validation":  # θ̄, θ, half of both, perhaps the local model; what was chosen
        models = 3 + any(baseline.name == "local" for baseline in methods[1:])
        scored += models * held["validation"] + held["test"]
    work = len(methods) * (trained + 2 * held["test"]) + scored
    return Forecast(
        methods=len(methods),
        asked=asked,
        steps=sum(map(len, orders.values())),
        passes=passes,
        cohort=max(map(len, groups)),
        tokens=tokens,
        memory=_memory(config, worker, len(clients), max(map(len, groups))),
        seconds=work / rate,
        rate=rate,
        more=any(
            not isinstance(method.objective, Plain) or method.aggregator.weighting.halves
            for method in methods
        ),
    )


def _rate(worker: Worker, clients: list[str]) -> float:
    """Tokens a second through the model at θ₀; the first pass, which warms up, is not counted."""
    start = worker.backend.foundation.initial()
    models = start.expand(len(clients), -1)
    lengths = [n for client in clients for n in worker.partitions.examples[client, "train"].lengths]
    rows, spent, begin = -1, 0.0, 0.0
    for _ in range(2):  # there may be one pass alone
        for part in worker.backend.answers(clients, models, "train"):
            now = time.perf_counter()
            rows, spent = (0, 0.0) if rows < 0 else (rows + len(part.client), spent + now - begin)
            begin = now
            if spent > _ENOUGH:
                break
        if spent > _ENOUGH:
            break
    return rows * sum(lengths) / len(lengths) / spent


def _memory(config: Config, worker: Worker, clients: int, cohort: int) -> Memory:
    backend = worker.backend
    size, model = backend.foundation.layout.size, backend.foundation.model
    frozen: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage: torch.UntypedStorage = tensor.untyped_storage()
        frozen[storage.data_ptr()] = storage.nbytes()
    matrices = (3 if len(config.methods) > 1 else 2) * (not config.server.on_disk)
    activations = None
    if isinstance(backend, Stacked) and backend.bytes_per_token:
        longest = sum(sum(one.lengths) for one in worker.partitions.examples.values())
        activations = backend.bytes_per_token * min(backend.limits.tokens, longest)
    return Memory(
        model=sum(frozen.values()),
        server=matrices * clients * size * 4,
        cohort=cohort * size * 4 * (6 + config.client.objective.copies),
        activations=activations,
    )
