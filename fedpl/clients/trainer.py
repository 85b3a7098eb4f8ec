"""Trains and scores clients, one at a time, on one resident copy of the foundation model."""

import logging
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.utils import logging as transformers_logging

from fedpl.clients.adapter import flatten, layout_of, unflatten
from fedpl.clients.batches import Tokens, batch_order, evaluation_batches, training_batches
from fedpl.clients.fitting import fit_once
from fedpl.clients.hardware import Hardware
from fedpl.clients.model import PooledClassifier, add_adapter, load_base, load_tokenizer
from fedpl.clients.module import ClientModule
from fedpl.config import Config
from fedpl.data import FederatedData
from fedpl.randomness import derive_seed
from fedpl.scores import Scores, score


@dataclass(frozen=True)
class Fit:
    """What a client's local training reports.

    Attributes:
        steps: Optimiser steps taken.
        loss: Mean training loss over the steps.
    """

    steps: int
    loss: float


class ClientTrainer:
    """The model, every client's tokens, and how to train and score.

    Args:
        config: The run.
        data: All clients.
        hardware: Where to train.
        base: The foundation model, where it has been loaded already; it is changed.
    """

    def __init__(
        self,
        config: Config,
        data: FederatedData,
        hardware: Hardware,
        base: PooledClassifier | None = None,
    ) -> None:
        _quieten()
        self.config = config
        self.hardware = hardware
        tokenizer = load_tokenizer(config.model)
        base = base or load_base(config.model, len(data.classes))
        init = derive_seed(config.seed, "init")
        self.model = add_adapter(base, config.lora, config.model.path, init).to(hardware.device)
        self.layout = layout_of(self.model)
        self.tokens = {
            (client.id, split): Tokens(getattr(client, split), tokenizer, config.model.max_length)
            for client in data.clients
            for split in ("train", "validation", "test")
        }

    def initial(self) -> Float[Tensor, "params"]:
        """θ₀, drawn from the seed when the trainer was made; read it before any training."""
        vector = torch.empty(self.layout.size)
        flatten(self.model, self.layout, vector)
        return vector

    def order(self, client: str, round: int) -> list[list[int]]:
        """The examples of each step of a client's round."""
        config = self.config.client
        seed = derive_seed(self.config.seed, "order", round, client)
        examples = len(self.tokens[client, "train"])
        return batch_order(examples, config.batch_size, config.epochs, seed, config.max_steps)

    def fit(
        self, client: str, received: Float[Tensor, "params"], out: Float[Tensor, "params"], round: int
    ) -> Fit:
        """Fine-tune on one client's training data.

        Args:
            client: Whose data.
            received: The client's aggregate θ̄ᵢ.
            out: Receives the tuned θᵢ; may be a row of a matrix on any device.
            round: Number of the round, from 1.
        """
        config, seed = self.config.client, self.config.seed
        unflatten(received, self.model, self.layout)
        order = self.order(client, round)
        loader = training_batches(self.tokens[client, "train"], order)
        module = ClientModule(self.model, config, derive_seed(seed, "dropout", round, client))
        fit_once(module, loader, self.hardware, config.gradient_clip)
        flatten(self.model, self.layout, out)
        return Fit(len(module.losses), sum(module.losses) / len(module.losses))

    @torch.inference_mode()
    def score(self, client: str, vector: Float[Tensor, "params"], split: str) -> Scores:
        """Quality of an adapter on one split of one client's data.

        Args:
            client: Whose data.
            vector: The adapter.
            split: train, validation or test.
        """
        # Lightning moves a model to the CPU when a fit ends.
        model = self.model.to(self.hardware.device).eval()
        unflatten(vector, model, self.layout)
        labels: list[int] = []
        answers: list[int] = []
        with self.hardware.autocast():
            for batch in evaluation_batches(self.tokens[client, split], self.config.evaluation.batch_size):
                logits = model(
                    input_ids=batch["input_ids"].to(self.hardware.device),
                    attention_mask=batch["attention_mask"].to(self.hardware.device),
                )
                labels += batch["labels"].tolist()
                answers += logits.argmax(-1).tolist()
        return score(labels, answers)


def _quieten() -> None:
    """One line per client and round about devices would drown a run's own output."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
