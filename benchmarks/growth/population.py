"""Clients without a model: what each sends is a hash of seed, round and client."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.executors.protocol import GoOn
from fedpl.randomness import derive_seed
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import Answer, Census, Company, Member, Notice, Report, Seconds, Work
from fedpl.records.scores import Scores
from fedpl.tasks.metrics import CLASSIFICATION

_TOGETHER = 64  # clients of a cohort on a CPU
_GROUPS = 4
_FLOOR = {"accuracy": 0.5, "macro_f1": 0.25}


def layout(params: int) -> AdapterLayout:
    """Six blocks of LoRA on two modules each, and a head: so many parameters, of which 50 are a column."""
    width = params // 50
    blocks = {
        f"layers.{block}.{module}.lora_{kind}": (2, width) if kind == "A" else (width, 2)
        for block in range(6)
        for module in ("query", "value")
        for kind in "AB"
    }
    return AdapterLayout.of({**blocks, "head.weight": (2, width)})


class StandIn:
    """An executor that trains nobody; see `fedpl.executors.protocol.Executor`.

    Four groups of clients have a direction each, which is a third of what its members send.

    Args:
        clients: How many.
        params: Trainable parameters; a multiple of 50.
        seed: Of all that they send.

    Attributes:
        seconds: What making up answers has taken.
    """

    def __init__(self, clients: int, params: int, seed: int = 0) -> None:
        self.seed, self.seconds = seed, 0.0
        names = [f"client-{i:05d}" for i in range(clients)]
        members = tuple(
            Member(name, 16 + i % 32, _FLOOR, name, str(i % _GROUPS)) for i, name in enumerate(names)
        )
        own = layout(params)
        start = torch.zeros(own.size)  # torch's memory is aligned as JAX wants it, NumPy's is not
        self._numbers(own.size, "start", out=start.numpy())
        self._group = {name: i % _GROUPS for i, name in enumerate(names)}
        self._directions = [self._numbers(own.size, "group", group) for group in range(_GROUPS)]
        self._census = Census(members, own, start, CLASSIFICATION, ("no", "yes"), "no machine")

    def join(self) -> Census:
        return self._census

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        names = [each.client for each in work]
        groups = (tuple(names[i : i + _TOGETHER]) for i in range(0, len(names), _TOGETHER))
        return Company(tuple(groups), {"size": _TOGETHER})

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Float[Tensor, "params"]] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        assert into is not None
        for each in work:
            begin = time.perf_counter()
            row = into[each.client].numpy()
            self._numbers(len(row), "vector", each.round, each.client, out=row)
            row += 0.5 * self._directions[self._group[each.client]]
            row *= 1e-3
            scores = {split: self._scores(each.client, each.round, split) for split in each.splits}
            self.seconds += time.perf_counter() - begin
            choice = self._group[each.client] % 2 if each.received.dim() == 2 else None
            yield Report(each.client, into[each.client], 16, 8, 0.5, scores, Seconds(0.01), choice=choice)

    def score(
        self, clients: Sequence[str], models: Float[Tensor, "clients params"], split: str
    ) -> Mapping[str, Scores]:
        return {client: self._scores(client, 0, split) for client in clients}

    def tell(self, notice: Notice) -> None:
        """Nobody is there."""

    def _numbers(self, size: int, *names: Any, out: np.ndarray | None = None) -> np.ndarray:
        stream = np.random.default_rng(derive_seed(self.seed, *names))
        return stream.standard_normal(size, np.float32, out=out)

    def _scores(self, client: str, round: int, split: str) -> Scores:
        value = derive_seed(self.seed, f"score {split}", round, client) % 997 / 997
        return {"accuracy": value, "macro_f1": value / 2}
