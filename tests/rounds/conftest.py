"""Clients whose training is arithmetic, so that rounds can be run, cut off and repeated in milliseconds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fedpl.conditions import FaultsConfig, PrivacyConfig
from fedpl.executors.protocol import GoOn
from fedpl.method import Method
from fedpl.objectives import Plain
from fedpl.randomness import derive_seed
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import (
    Begin,
    Census,
    Company,
    Failure,
    Frozen,
    Member,
    Notice,
    Report,
    Seconds,
    Work,
)
from fedpl.records.scores import Scores
from fedpl.rounds.federation import Federation
from fedpl.server import Aggregator
from fedpl.site.faults import Faults
from fedpl.site.memory import Memory
from fedpl.site.privacy import privatise
from fedpl.tasks.metrics import CLASSIFICATION

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
        memory: What clients remember: how often they have trained.
        sabotage: Called with the work and the client's row after training, for tests of what may go wrong.
        answers: Called with what would be answered, for tests of wrong answers.
    """

    def __init__(
        self,
        size: int = 2,
        clients: Sequence[str] = CLIENTS,
        faults: FaultsConfig = FaultsConfig(),  # noqa: B008
        privacy: PrivacyConfig = PrivacyConfig(),  # noqa: B008
        seed: int = 0,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        self.size = size
        self.trained: list[tuple[int, str]] = []
        self.shifts: list[torch.Tensor | None] = []
        self.memory = Memory()
        self.faults = Faults(clients, faults, seed)
        self.privacy, self.seed = privacy, seed
        self.sabotage: Callable[[Work, torch.Tensor], None] = lambda work, row: None
        self.answers: Callable[[Report], Sequence[Report]] = lambda report: [report]
        members = tuple(
            Member(c, 10 + len(c), {"accuracy": 0.5, "macro_f1": 0.25}, c, (groups or {}).get(c, ""))
            for c in clients
        )
        initial = torch.linspace(-1, 1, LAYOUT.size)
        self.census = Census(members, LAYOUT, initial, CLASSIFICATION, ("no", "yes"), "toy")

    def join(self) -> Census:
        return self.census

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        if capacity:
            self.size = capacity["size"]
        there = [each.client for each in work if not self.faults.lost(each.client, each.round)]
        groups = [there[i : i + self.size] for i in range(0, len(there), self.size)]
        return Company(tuple(map(tuple, self.faults.company(groups))), {"size": self.size})

    def tell(self, notice: Notice) -> None:
        match notice:
            case Begin():
                self.memory = Memory(None if notice.folder is None else Path(notice.folder))
            case Frozen():
                self.shifts.append(None if notice.residual is None else notice.residual.clone())

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, torch.Tensor] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Report | Failure]:
        assert into is not None
        asked = {each.client: each for each in work}
        for members in company.groups:
            group = [asked[client] for client in members if client in asked]
            if go_on is not None and not go_on():
                break
            try:
                reports = [self._train(each, len(group), into[each.client]) for each in group]
            except RuntimeError as error:
                reason = f"its training failed: {' '.join(f'{type(error).__name__}: {error}'.split())}"
                yield Failure(tuple(each.client for each in group), reason, error, group[0].attempt)
                continue
            sent = {each.client: into[each.client] for each in group if each.sends}
            for client, row in sent.items():
                privatise(row, self.privacy, self.seed, asked[client].round, client)
            if group:
                self.faults.attack(sent, group[0].round)
            for report in reports:
                yield from self.answers(report)

    def _train(self, work: Work, together: int, row: torch.Tensor) -> Report:
        self.trained.append((work.round, work.client))
        received, choice = work.received, None
        if received.dim() == 2:
            goal = torch.full_like(received[0], len(work.client) - 3.5)
            losses = (received - goal).square().mean(1)
            choice = int(torch.where(losses.isfinite(), losses, torch.inf).argmin())
            received = received[choice]
        stream = torch.Generator().manual_seed(derive_seed(0, "toy", work.round, work.client))
        goal = torch.randn(len(received), generator=stream)
        count = self.memory.recall(work.client, work.memory).get("count", torch.zeros(1)) + 1
        row.copy_(0.1 * (goal - received) + 1e-3 * together + 1e-3 * count)
        self.sabotage(work, row)
        scores = {split: {"accuracy": 0.5 + float(row[0]) / 100, "macro_f1": 0.25} for split in work.splits}
        return Report(
            work.client,
            row,
            10 + len(work.client),
            3,
            float(row.norm()),
            scores,
            Seconds(0.25, 0.0, 0.125),
            self.memory.keep(work.client, {"count": count}),
            choice,
            self.faults.late(work.client, work.round),
            work.attempt,
        )

    def score(self, clients: Sequence[str], models: torch.Tensor, split: str) -> dict[str, Scores]:
        return {
            c: {"accuracy": float(v.sum()), "macro_f1": 0.5} for c, v in zip(clients, models, strict=True)
        }


@pytest.fixture
def toy() -> Callable[..., Federation]:
    """Makes a federation of seven toy clients, `size` training together; else its fields."""

    def make(size: int = 2, **changes: Any) -> Federation:
        own = {
            name: changes.pop(name) for name in ("faults", "privacy", "clients", "groups") if name in changes
        }
        rule = changes.pop("aggregator", Aggregator())
        objective = changes.pop("objective", None)
        executor = changes.pop("executor", None) or ToyExecutor(size, seed=changes.get("seed", 0), **own)
        method = Method("toy", objective or Plain(), rule)
        return Federation(**({"method": method, "executor": executor} | changes))

    return make
