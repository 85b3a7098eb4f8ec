"""The same clients, seeds and steps, trained in several ways."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.cohort.causal import model_config
from fedpl.config import ClientConfig, Config, with_changes
from fedpl.data import ClientData, FederatedData, Split
from fedpl.model.adapter import flatten, trainable, unflatten
from fedpl.objectives import Plain
from fedpl.runs.sites import backend_of
from fedpl.training.alone.backend import Alone
from fedpl.training.alone.module import set_dropout
from fedpl.training.session import Assignment
from fedpl.training.stacked.backend import Stacked
from fedpl.training.worker import Worker

STEPS = 2


def clients(number: int, batch: int, tokens: int) -> FederatedData:
    """Clients with `STEPS` batches of texts of about this many tokens: short words, one token each."""
    stream = random.Random(0)
    words = ("the", "flight", "was", "late", "and", "my", "bag", "is", "not", "here", "but", "thanks", "for")

    def split(size: int) -> Split:
        spread = max(tokens // 4, 1)
        lengths = [stream.randint(tokens - spread, tokens) - 2 for _ in range(size)]
        texts = tuple(" ".join(stream.choices(words, k=max(length, 1))) for length in lengths)
        return Split(texts, tuple(i % 2 for i in range(size)))

    def client(i: int) -> ClientData:
        return ClientData(f"c{i}", split(STEPS * batch), split(2), split(2))

    return FederatedData(tuple(map(client, range(number))), ("negative", "positive"))


def make(data: FederatedData, model: str, batch: int, accelerator: str, precision: str) -> Alone:
    """The clients one by one, without dropout, so that every way computes the same."""
    client = ClientConfig(batch_size=batch, epochs=1, model_dropout=False, cohort_size=1)
    changes = {"accelerator": accelerator, "precision": precision}
    config = with_changes(Config(model=model_config(model), client=client), changes)
    backend = backend_of(config, data)
    assert isinstance(backend, Alone)
    return backend


def ids_of(alone: Alone) -> list[str]:
    """The clients."""
    return list(dict.fromkeys(client for client, _ in alone.partitions.examples))


@cache
def resident(model: str, number: int, batch: int, tokens: int) -> Alone:
    """A worker process's own clients, made once; in a module, because what Ray pickles is made anew."""
    torch.set_num_threads(1)
    return make(clients(number, batch, tokens), model, batch, "cpu", "32-true")


def cohort(alone: Alone, start: torch.Tensor, size: int, **options: bool) -> Callable[[], torch.Tensor]:
    """Cohorts of this size; the result is every client's task vector."""
    config = replace(alone.partitions.config, cohort_size=size, **options)  # type: ignore[arg-type]
    worker = Worker(Stacked(alone.foundation, replace(alone.partitions, config=config)))
    return _trained(worker, ids_of(alone), start)


def peft_with_lightning(alone: Alone, start: torch.Tensor) -> Callable[[], torch.Tensor]:
    """One by one through PEFT with a fresh Lightning Trainer each: fedpl's own way for K = 1."""
    return _trained(Worker(alone), ids_of(alone), start)


def _trained(worker: Worker, ids: Sequence[str], start: torch.Tensor) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        out = torch.empty(len(ids), len(start))
        for places, theta, _ in worker.fit([Assignment(client, start, {}) for client in ids], 1, Plain()):
            out[places] = (theta.to(start.device) - start).cpu()
        return out

    return call


def peft_bare(
    alone: Alone, start: torch.Tensor, chosen: Sequence[str] | None = None
) -> Callable[[], torch.Tensor]:
    """One by one through PEFT with nothing around the steps; all clients, or those that are chosen."""
    ids, partitions, foundation = chosen or ids_of(alone), alone.partitions, alone.foundation
    hardware, config = foundation.hardware, partitions.config

    def call() -> torch.Tensor:
        out = torch.empty(len(ids), len(start))
        model = foundation.model
        set_dropout(model, False)
        for row, client in enumerate(ids):
            unflatten(start, model, foundation.layout)
            named = trainable(model)
            groups = [
                {"params": [p for name, p in named.items() if "lora" in name], "lr": config.lr},
                {"params": [p for name, p in named.items() if "lora" not in name], "lr": config.head_lr},
            ]
            optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
            for indices in partitions.order(client, 1):
                batch = partitions.examples[client, "train"].collate(indices).to(hardware.device)
                with hardware.autocast():
                    logits = model(**batch.inputs)
                loss = F.cross_entropy(logits.float(), batch.targets)
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(named.values(), config.gradient_clip)
                optimiser.step()
            flatten(model, foundation.layout, out[row])
        return out - start.cpu()

    return call


def frozen_limit(alone: Alone) -> Callable[[], None]:
    """Forward and backward of the base model alone on the same real tokens, none padded: the least work."""
    model, hardware = alone.foundation.model, alone.foundation.hardware
    device = hardware.device
    kept = [part for (_, split), part in alone.partitions.examples.items() if split == "train"]
    tokens = torch.cat([ids for part in kept for ids in part.ids])
    length = round(sum(len(ids) for part in kept for ids in part.ids) / sum(map(len, kept)))
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    encoder: Any = model.get_base_model().encoder
    rows_per_pass = max((2048 if device.type == "cpu" else 16_384) // length, 1)

    def call() -> None:
        encoder.eval()
        with model.disable_adapter():
            for part in rows.split(rows_per_pass):
                embedded = encoder.get_input_embeddings()(part.to(device)).detach().requires_grad_()
                with hardware.autocast():
                    states = encoder(inputs_embeds=embedded).last_hidden_state
                states.float().sum().backward()

    return call
