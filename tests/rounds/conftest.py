"""Clients whose training is arithmetic, so that rounds can be run, cut off and repeated in milliseconds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch

from fedpl.layout import AdapterLayout
from fedpl.randomness import derive_seed
from fedpl.rounds.executor import ClientUpdate, Job
from fedpl.rounds.loop import Federation
from fedpl.scores import Scores
from fedpl.server import Aggregator

LAYOUT = AdapterLayout.of(
    {f"layers.{i}.lora_{kind}": (2, 4) if kind == "A" else (4, 2) for i in range(2) for kind in "AB"}
    | {"head.weight": (3, 5)}
)
CLIENTS = ("ada", "bob", "cleo", "dan", "eve", "fay", "gus")


class ToyExecutor:
    """Every client is drawn to a point of its own; the result depends on the company, as rounding does.

    Attributes:
        size: Clients that train together.
        trained: Clients in the order in which they were trained.
        shifts: What the frozen weights were moved by, in order.
        states: What clients remember: how often they have trained.
        sabotage: Called with a job and the client's row after training, for tests of what may go wrong.
    """

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.trained: list[tuple[int, str]] = []
        self.states: dict[str, dict[str, torch.Tensor]] = {}
        self.shifts: list[torch.Tensor | None] = []
        self.sabotage: Callable[[Job, torch.Tensor], None] = lambda job, row: None

    def groups(self, jobs: Sequence[Job]) -> list[list[Job]]:
        return [list(jobs[i : i + self.size]) for i in range(0, len(jobs), self.size)]

    def capacity(self) -> dict[str, int]:
        return {"size": self.size}

    def set_capacity(self, capacity: dict[str, int]) -> None:
        self.size = capacity["size"]

    def shift(self, residual: torch.Tensor | None) -> None:
        self.shifts.append(None if residual is None else residual.clone())

    def losses(self, clients: Sequence[str], vectors: torch.Tensor) -> torch.Tensor:
        goals = [torch.full_like(vectors[0], len(client) - 3.5) for client in clients]
        return torch.stack([(vectors - goal).square().mean(1) for goal in goals])

    def client_state(self, client: str) -> dict[str, torch.Tensor]:
        return self.states.get(client, {})

    def load_client_state(self, client: str, state: dict[str, torch.Tensor]) -> None:
        self.states[client] = dict(state)

    def train(self, jobs: Iterable[Job], out: torch.Tensor) -> Iterator[ClientUpdate]:
        jobs = list(jobs)
        for job in jobs:
            self.trained.append((job.round, job.client))
            stream = torch.Generator().manual_seed(derive_seed(0, "toy", job.round, job.client))
            goal = torch.randn(len(job.received), generator=stream)
            count = self.states.get(job.client, {}).get("count", torch.zeros(1)) + 1
            self.states[job.client] = {"count": count}
            row = 0.1 * (goal - job.received) + 1e-3 * len(jobs) + 1e-3 * count
            self.sabotage(job, row)
            out[job.row] = row
            tuned = {split: Scores(0.5 + float(row[0]) / 100, 0.25) for split in job.splits}
            examples = 10 + len(job.client)
            yield ClientUpdate(job.client, job.row, examples, 3, float(row.norm()), tuned, 0.25, 0.125)

    def score(self, clients: Sequence[str], vectors: torch.Tensor, split: str) -> dict[str, Scores]:
        return {client: Scores(float(v.sum()), 0.5) for client, v in zip(clients, vectors, strict=True)}


@pytest.fixture
def toy() -> Callable[..., Federation]:
    """Makes a federation of seven toy clients, `size` training together; else its fields."""

    def make(size: int = 2, **changes: Any) -> Federation:
        fields = {
            "clients": CLIENTS,
            "layout": LAYOUT,
            "aggregator": Aggregator(),
            "executor": ToyExecutor(size),
            "initial": torch.linspace(-1, 1, LAYOUT.size),
        }
        return Federation(**(fields | changes))

    return make
