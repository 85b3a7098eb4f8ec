"""The same clients, seeds and steps, trained in several ways."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
from fedpl.training.stacked.cohorts import Assignment, CohortTrainer
from fedpl.training.trainer import ClientTrainer
from torch.nn import functional as F

from benchmarks.cohort.causal import model_config
from fedpl.config import ClientConfig, Config
from fedpl.data import ClientData, FederatedData, Split
from fedpl.model.adapter import flatten, trainable, unflatten
from fedpl.model.hardware import choose_hardware
from fedpl.training.alone.module import set_dropout

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

    parts = (STEPS * batch, 2, 2)
    return FederatedData(
        tuple(ClientData(f"c{i}", *map(split, parts)) for i in range(number)), ("negative", "positive")
    )


def make(data: FederatedData, model: str, batch: int, accelerator: str, precision: str) -> ClientTrainer:
    """A trainer without dropout, so that every way computes the same."""
    config = Config(
        model=model_config(model),
        client=ClientConfig(batch_size=batch, epochs=1, model_dropout=False),
    )
    return ClientTrainer(config, data, choose_hardware(accelerator, precision))


@cache
def resident(model: str, number: int, batch: int, tokens: int) -> ClientTrainer:
    """A worker process's own trainer, made once; in a module, because what Ray pickles is made anew."""
    torch.set_num_threads(1)
    return make(clients(number, batch, tokens), model, batch, "cpu", "32-true")


def cohort(
    trainer: ClientTrainer, start: torch.Tensor, size: int, **options: bool
) -> Callable[[], torch.Tensor]:
    """Cohorts of this size; the result is every client's task vector."""
    ids = list(dict.fromkeys(client for client, _ in trainer.tokens))
    settings = replace(trainer.config.client, cohort_size=size, **options)  # type: ignore[arg-type]
    kept = trainer.config
    trainer.config = replace(kept, client=settings)
    cohorts = CohortTrainer(trainer)
    trainer.config = kept

    def call() -> torch.Tensor:
        out = torch.empty(len(ids), len(start))
        for places, theta, _ in cohorts.fit([Assignment(client, start) for client in ids], 1):
            out[places] = (theta - start).cpu()
        return out

    return call


def peft_with_lightning(trainer: ClientTrainer, start: torch.Tensor) -> Callable[[], torch.Tensor]:
    """One by one through PEFT with a fresh Lightning Trainer each: fedpl's own way for K = 1."""
    ids = list(dict.fromkeys(client for client, _ in trainer.tokens))

    def call() -> torch.Tensor:
        out = torch.empty(len(ids), len(start))
        for row, client in enumerate(ids):
            trainer.fit(client, start, out[row], 1)
        return out - start.cpu()

    return call


def peft_bare(trainer: ClientTrainer, start: torch.Tensor) -> Callable[[], torch.Tensor]:
    """One by one through PEFT with nothing around the steps."""
    ids = list(dict.fromkeys(client for client, _ in trainer.tokens))

    def call() -> torch.Tensor:
        out = torch.empty(len(ids), len(start))
        device = trainer.hardware.device
        model = trainer.model
        set_dropout(model, False)
        config = trainer.config.client
        for row, client in enumerate(ids):
            unflatten(start, model, trainer.layout)
            named = trainable(model)
            groups = [
                {"params": [p for name, p in named.items() if "lora" in name], "lr": config.lr},
                {"params": [p for name, p in named.items() if "lora" not in name], "lr": config.head_lr},
            ]
            optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
            for indices in trainer.order(client, 1):
                batch = trainer.tokens[client, "train"].collate(indices)
                ids_, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
                with trainer.hardware.autocast():
                    logits = model(input_ids=ids_, attention_mask=mask)
                loss = F.cross_entropy(logits.float(), batch["labels"].to(device))
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(named.values(), config.gradient_clip)
                optimiser.step()
            flatten(model, trainer.layout, out[row])
        return out - start.cpu()

    return call


def frozen_limit(trainer: ClientTrainer) -> Callable[[], None]:
    """Forward and backward of the base model alone on the same real tokens, none padded: the least work."""
    device = trainer.hardware.device
    kept = [part for (_, split), part in trainer.tokens.items() if split == "train"]
    tokens = torch.cat([ids for part in kept for ids in part.ids])
    length = round(sum(len(ids) for part in kept for ids in part.ids) / sum(map(len, kept)))
    rows = tokens[: len(tokens) // length * length].view(-1, length)
    encoder = trainer.model.get_base_model().encoder
    rows_per_pass = max((2048 if device.type == "cpu" else 16_384) // length, 1)

    def call() -> None:
        encoder.eval()
        with trainer.model.disable_adapter():
            for part in rows.split(rows_per_pass):
                embedded = encoder.get_input_embeddings()(part.to(device)).detach().requires_grad_()
                with trainer.hardware.autocast():
                    states = encoder(inputs_embeds=embedded).last_hidden_state
                states.float().sum().backward()

    return call
