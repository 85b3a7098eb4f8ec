"""Clients one after another by PEFT itself: slow and plain, what the stacked backend is held against."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.errors import UserError
from fedpl.model.adapter import flatten as read
from fedpl.model.adapter import learning, trainable, unflatten
from fedpl.model.base import HEAD
from fedpl.model.foundation import Foundation
from fedpl.objectives.models import Duo, Models, rows_of
from fedpl.objectives.phases import Phase
from fedpl.tasks.examples import Batch
from fedpl.training.alone.decoding import decode
from fedpl.training.alone.module import ClientModule
from fedpl.training.backend import Answered, Effort
from fedpl.training.batches import evaluation_order, training_batches
from fedpl.training.classes import known_classes
from fedpl.training.duo import beside, centre, compared_examples, head_inputs, shares
from fedpl.training.fitting import fit_once
from fedpl.training.partitions import Learner, Partitions
from fedpl.training.settings import ClientConfig


class Alone:
    """The model is given one client's adapter at a time.

    Args:
        foundation: The PEFT model.
        partitions: The clients' data, task and settings.
        batch_size: Texts per forward pass when scoring.
    """

    size = 1

    def __init__(self, foundation: Foundation, partitions: Partitions, batch_size: int) -> None:
        self.foundation = foundation
        self.partitions = partitions
        self.batch_size = batch_size

    def fit(
        self,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
        phase: Phase,
    ) -> list[float]:
        model, layout = self.foundation.model, self.foundation.layout
        means = []
        for i, learner in enumerate(learners):
            if not learner.order:
                means.append(0.0)
                continue
            scaled = replace(config, lr=config.lr * learner.rate, head_lr=config.head_lr * learner.rate)
            unflatten(theta[i], model, layout)
            parameters = trainable(model)
            part = phase.rows(slice(i, i + 1))
            second = part.beside and beside(model, layout, part.beside.other[0], part.beside.share)
            with learning(parameters, phase.train), second or nullcontext():
                module = ClientModule(model, parameters, scaled, self.partitions.task, learner, part)
                loader = training_batches(learner.examples, learner.order)
                fit_once(module, loader, self.foundation.hardware, config.gradient_clip)
            read(model, layout, theta[i])
            means.append(sum(module.losses) / len(module.losses))
        return means

    def answers(self, clients: Sequence[str], models: Models, split: str) -> Iterator[Answered]:
        for place, client in enumerate(clients):
            examples = self.partitions.examples[client, split]
            weights = examples.weights(range(len(examples)))
            parts = evaluation_order(examples, self.batch_size)
            outputs = self._outputs(
                client, rows_of(models, place), [examples.collate(part) for part in parts]
            )
            for part, (targets, output) in zip(parts, outputs, strict=True):
                yield Answered(
                    torch.full((len(part),), place, device=output.device),
                    targets.to(output.device),
                    known_classes(output, self.partitions.classes[client]),
                    torch.tensor([weights[i] for i in part], device=output.device),
                )

    def write(
        self,
        clients: Sequence[str],
        models: Models,
        prompts: Sequence[Sequence[list[int]]],
        streams: Sequence[Sequence[int]],
    ) -> list[list[list[int]]]:
        asked, peft = self.partitions.prompts, self.foundation.model
        assert asked is not None
        model: Any = peft.get_base_model().encoder
        write = partial(decode, model, settings=asked.settings, ends=asked.ends)
        found = []
        for place, (client, ids, drawn) in enumerate(zip(clients, prompts, streams, strict=True)):
            own = rows_of(models, place)
            with torch.no_grad(), self.foundation.hardware.autocast():
                if isinstance(own, Duo):
                    found.append(self._write_in_pairs(client, own, ids, drawn, write))
                else:
                    unflatten(own, peft, self.foundation.layout)
                    found.append(write(ids, streams=drawn))
        return found

    def _write_in_pairs(
        self,
        client: str,
        duo: Duo,
        prompts: Sequence[list[int]],
        streams: Sequence[int],
        write: Callable[..., list[list[int]]],
    ) -> list[list[int]]:
        """Answers by two adapters; a prompt is weighed by its last state, as an example with an answer is."""
        peft, layout = self.foundation.model.eval(), self.foundation.layout
        model: Any = peft.get_base_model().encoder
        unflatten(duo.local, peft, layout)
        middle, gates = self._centre(client, duo), []
        with head_inputs(model.get_output_embeddings()) as seen:
            for ids in prompts:
                model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
                gates.append(shares(seen.pop()[:, -1], middle, duo.max_share))
        found = []
        with beside(peft, layout, duo.common.to(self.foundation.hardware.device)) as share:
            for ids, stream, share.value in zip(prompts, streams, gates, strict=True):
                found += write([ids], streams=[stream])
        return found

    def groups(self, efforts: Sequence[Effort]) -> list[list[int]]:
        return [[place] for place in range(len(efforts))]

    def capacity(self) -> dict[str, int]:
        return {}

    def use(self, capacity: Mapping[str, int]) -> None:
        return

    def shrink(self, clients: int) -> None:
        raise UserError(
            "client.cohort_size: 1 trains a whole step at once, which does not fit in the memory; set it to "
            "auto, which cuts steps into passes, or lower client.batch_size"
        )

    def rest(self) -> None:
        return

    def _outputs(
        self, client: str, model: Models, batches: Sequence[Batch]
    ) -> Iterator[tuple[Tensor, Float[Tensor, "batch ..."]]]:
        """Targets and outputs of each batch."""
        peft, layout = self.foundation.model.eval(), self.foundation.layout
        if not isinstance(model, Duo):
            unflatten(model, peft, layout)
            for batch in batches:
                yield batch.targets, self._run(batch)
            return
        unflatten(model.local, peft, layout)
        middle, gates = self._centre(client, model), []
        with head_inputs(peft.get_base_model().get_submodule(HEAD)) as seen:
            for batch in batches:
                self._run(batch)
                gates.append(shares(seen.pop(), middle, model.max_share))
        with beside(peft, layout, model.common.to(self.foundation.hardware.device)) as share:
            for batch, share.value in zip(batches, gates, strict=True):
                yield batch.targets, self._run(batch)

    def _centre(self, client: str, duo: Duo) -> Float[Tensor, "1 features"]:
        """What texts are compared with, by the local adapter, which is in place."""
        known = self.partitions.examples[client, "train"]
        chosen = compared_examples(self.partitions.seed, client, len(known), duo.examples)
        with head_inputs(self.foundation.model.get_base_model().get_submodule(HEAD)) as seen:
            self._run(known.collate(chosen))
        return centre(seen.pop())[None]

    def _run(self, batch: Batch) -> Float[Tensor, "batch ..."]:
        hardware = self.foundation.hardware
        with torch.no_grad(), hardware.autocast():
            return self.foundation.model(**batch.to(hardware.device).inputs)
