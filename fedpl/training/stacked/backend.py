"""Many clients at once, their adapters stacked on one frozen model."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.errors import UserError
from fedpl.model.base import HEAD
from fedpl.model.foundation import Foundation
from fedpl.model.memory import free_memory, return_memory
from fedpl.objectives.models import Duo, Models
from fedpl.objectives.phases import Phase
from fedpl.tasks.examples import Examples
from fedpl.training.backend import Answered, Effort
from fedpl.training.duo import centre, compared_examples, head_inputs, shares
from fedpl.training.partitions import Learner, Partitions
from fedpl.training.settings import ClientConfig
from fedpl.training.stacked.decoding import Decoder
from fedpl.training.stacked.engine import Engine
from fedpl.training.stacked.module import fit_cohort
from fedpl.training.stacked.packing import Limits, Pass, Row, Rows, Texts, pack
from fedpl.training.stacked.planner import cohort_size, group, pass_limits

_log = logging.getLogger(__name__)


class Stacked:
    """Cohorts of clients go through the model together.

    Args:
        foundation: The PEFT model; it stays the plain one, its frozen weights are shared.
        partitions: The clients' data, task and settings.

    Raises:
        UserError: If the adapter cannot be stacked.

    Attributes:
        bytes_per_token: Activations that a token leaves for the backward pass; 0: not counted.
        limits: Largest pass through the model; halved when memory runs out, like the size.
    """

    def __init__(self, foundation: Foundation, partitions: Partitions) -> None:
        self.foundation = foundation
        self.partitions = partitions
        self.device = foundation.hardware.device
        self._halved = 1  # answers at once are so many times fewer than asked for
        config = partitions.config
        tokens = sum(sum(examples.lengths) for examples in partitions.examples.values())
        self.engine = Engine(foundation.model, foundation.layout, config, tokens)
        free = free_memory(self.device)
        self._size = cohort_size(
            config.cohort_size, self.device, foundation.layout.size, free, config.objective.copies
        )
        self.bytes_per_token = self._bytes_per_token() if config.tokens_per_pass == "auto" else 0
        self.limits = pass_limits(config.tokens_per_pass, self.device, self.bytes_per_token, free)

    @property
    def size(self) -> int:
        return self._size

    def fit(
        self,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
        phase: Phase,
    ) -> list[float]:
        return fit_cohort(
            self.engine,
            theta,
            learners,
            config,
            self.foundation.hardware,
            self.limits,
            self.partitions.task,
            phase,
        )

    def answers(self, clients: Sequence[str], models: Models, split: str) -> Iterator[Answered]:
        self.engine.stack.model.eval()
        self.engine.set_classes([self.partitions.classes[client] for client in clients])
        known = [self.partitions.examples[client, split] for client in clients]
        rows = Rows.chosen(Texts(known), known, [range(len(examples)) for examples in known])
        parts = pack(rows, self.limits)
        if not isinstance(models, Duo):
            self.engine.stack.bind(models.to(self.device))
            yield from self._run(parts)
            return
        self.engine.stack.bind(models.local.to(self.device))
        gates = self._gates(clients, models, parts)
        with self.engine.stack.beside(models.common.to(self.device), 1.0) as own:
            for part, own.share in zip(parts, gates, strict=True):
                yield from self._run([part])

    def write(
        self,
        clients: Sequence[str],
        models: Models,
        prompts: Sequence[Sequence[list[int]]],
        streams: Sequence[Sequence[int]],
    ) -> list[list[list[int]]]:
        asked, stack = self.partitions.prompts, self.engine.stack
        assert asked is not None
        stack.bind((models.local if isinstance(models, Duo) else models).to(self.device))
        settings = replace(
            asked.settings, rows=max(asked.settings.rows // self._halved, asked.settings.beams)
        )
        model: Any = stack.model.encoder
        decoder = Decoder(model, stack.rows, settings, asked.ends, self.limits)
        places = [place for place, own in enumerate(prompts) for _ in own]
        flat = [ids for own in prompts for ids in own]
        drawn = [stream for own in streams for stream in own]
        with torch.no_grad(), self.foundation.hardware.autocast():
            if not isinstance(models, Duo):
                answers = iter(decoder(flat, places, drawn))
            else:
                centres = self._centres(clients, models)[places]
                gates = shares(decoder.states(flat, places), centres, models.max_share)
                with stack.beside(models.common.to(self.device), 1.0):
                    answers = iter(decoder(flat, places, drawn, gates))
        return [[next(answers) for _ in own] for own in prompts]

    def groups(self, efforts: Sequence[Effort]) -> list[list[int]]:
        return group(efforts, self._size)

    def capacity(self) -> dict[str, int]:
        return {"size": self._size, "tokens": self.limits.tokens}

    def use(self, capacity: Mapping[str, int]) -> None:
        if capacity:
            self._size = capacity["size"]
            self.limits = self.limits._replace(tokens=capacity["tokens"])

    def shrink(self, clients: int) -> None:
        if clients == 1 and self.limits.tokens == 1:
            raise UserError(
                "client.cohort_size: one example of one client at a time does not fit in the memory: set "
                "client.gradient_checkpointing, or lower model.max_length"
            )
        self.engine.stack.bind(torch.zeros(1, self.foundation.layout.size, device=self.device))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._size = max(clients // 2, 1)
        self._halved *= 2
        self.limits = self.limits._replace(tokens=max(self.limits.tokens // 2, 1))
        _log.warning(
            "out of memory with %d clients at once: going on with %d, %d tokens a pass",
            clients,
            self._size,
            self.limits.tokens,
        )

    def rest(self) -> None:
        return_memory(self.device)

    def _run(self, parts: Sequence[Pass]) -> Iterator[Answered]:
        for part in parts:
            moved = part.to(self.device)
            with torch.no_grad(), self.foundation.hardware.autocast():
                outputs = self.engine(moved, cache=True)
            yield Answered(moved.client, moved.targets, outputs, moved.weight)

    def _gates(self, clients: Sequence[str], duo: Duo, parts: Sequence[Pass]) -> list[Float[Tensor, "rows"]]:
        """The local adapter's share for each row of each pass, with that adapter in place."""
        centres = self._centres(clients, duo)
        with head_inputs(self.engine.stack.model.get_submodule(HEAD)) as seen:
            return [
                shares(seen.pop(), centres[answered.client], duo.max_share) for answered in self._run(parts)
            ]

    def _centres(self, clients: Sequence[str], duo: Duo) -> Float[Tensor, "clients features"]:
        """What each client's texts are compared with, by its local adapter, which is in place."""
        seed = self.partitions.seed
        known = [self.partitions.examples[client, "train"] for client in clients]
        chosen = [
            compared_examples(seed, client, len(examples), duo.examples)
            for client, examples in zip(clients, known, strict=True)
        ]
        rows = Rows.chosen(Texts(known), known, chosen)
        vectors: list[list[Tensor]] = [[] for _ in clients]
        with head_inputs(self.engine.stack.model.get_submodule(HEAD)) as seen:
            for answered in self._run(pack(rows, self.limits)):
                for client, vector in zip(answered.client.tolist(), seen.pop(), strict=True):
                    vectors[client].append(vector)
        return torch.stack([centre(torch.stack(own)) for own in vectors])

    def _bytes_per_token(self) -> int:
        """Activations that a token leaves for the backward pass, counted on the row that leaves most."""
        own = [examples for examples in self.partitions.examples.values() if len(examples)]
        found = [self._bytes_per_token_of(max(own, key=lambda one: max(one.lengths)), "lengths")]
        if own[0].marked == "learned":  # what is kept for each of the vocabulary counts too
            found.append(self._bytes_per_token_of(max(own, key=lambda one: max(one.mass)), "mass"))
        return max(found)

    def _bytes_per_token_of(self, examples: Examples, most: str) -> int:
        """The same, counted on the row with most tokens or targets."""
        longest = max(range(len(examples)), key=getattr(examples, most).__getitem__)
        (part,) = pack([Row(0, examples, longest)], Limits(1))
        seen: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        stack = self.engine.stack
        frozen = {p.untyped_storage().data_ptr() for p in stack.model.parameters()}
        theta = torch.zeros(1, self.foundation.layout.size, device=self.device)
        stack.model.train(self.partitions.config.model_dropout)
        stack.bind(theta, torch.zeros_like(theta))
        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        with hooks, self.foundation.hardware.autocast():
            self.engine(part.to(self.device), cache=False)
        stack.bind(theta)
        return sum(size for at, size in seen.items() if at not in frozen) // examples.lengths[longest]
