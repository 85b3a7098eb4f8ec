"""``python -m tests.rounds.within``: what memory rounds on disk take beyond what the process holds before.

Two runs in one process, of which the first one compiles; clients look at what they receive, as those that
train do. Prints bytes: held before the second one, and held at most during it.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.growth.population import StandIn
from fedpl.conditions import ParticipationConfig
from fedpl.method import Method
from fedpl.objectives import Plain
from fedpl.records.messages import Answer, Work
from fedpl.rounds.checkpoints import Checkpoint, Checkpoints
from fedpl.rounds.federation import Federation
from fedpl.rounds.journal import Journal
from fedpl.rounds.loop import RoundResult, run_rounds
from fedpl.runs.hearing import _used_vectors
from fedpl.server import Aggregator, Uniform
from fedpl.tracking.vectors import store_vectors

CLIENTS, PARAMS, BUDGET = 200, 100_000, 2**24  # 80 MB of task vectors
SQUARES = 6 * 4 * CLIENTS**2  # of pairs of clients, beside
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Trained(StandIn):
    """Looks at what is received; task vectors may all be of one length, as cut and noised ones are.

    Args:
        even: Whether they are.
    """

    def __init__(self, even: bool) -> None:
        super().__init__(CLIENTS, PARAMS)
        self._even = even

    def train(self, work: Sequence[Work], *given: Any) -> Iterator[Answer]:
        received = {each.client: each.received for each in work}
        for answer in super().train(work, *given):
            assert torch.isfinite(received[answer.client].sum())
            if self._even:
                answer.vector.div_(torch.linalg.vector_norm(answer.vector))
            yield answer

    def score(self, clients: Sequence[str], models: torch.Tensor, split: str) -> Mapping[str, Any]:
        assert torch.isfinite(models.sum())
        return super().score(clients, models, split)


def federation(rule: Aggregator, fraction: float, even: bool, folder: Path) -> Federation:
    return Federation(
        Method(name="m", aggregator=rule, objective=Plain()),
        Trained(even),
        participation=ParticipationConfig(fraction=fraction),
        disk=folder,
        budget=BUDGET,
    )


def finish(make: Callable[[], Federation], folder: Path) -> None:
    """Two rounds with all that a run keeps of them; the second one in a process that was cut off in it."""
    journal = Journal(folder / "journal")
    for cut in (True, False):
        own, store = make(), Checkpoints(folder)
        for result in run_rounds(own, 2, store.latest(room=own.room), journal):
            if cut and result.round == 2:
                break  # its journal is there, its checkpoint is not
            shape = len(result.ledger.age), PARAMS
            store_vectors(folder, result.round, _used_vectors(result), shape, "f32")
            store.save(checkpoint(result, own))


def checkpoint(result: RoundResult, own: Federation) -> Checkpoint:
    sent = own.room.vectors if own.room is not None and own.method.aggregator.uses_stale else None
    return Checkpoint(result.state, result.ledger, sent, result.memories, {"size": 64}, "", 0.0)


def held(name: str) -> int:
    return 1024 * int(_STATUS.read_text().partition(f"{name}:")[2].split()[0])


CASES: dict[str, tuple[Aggregator, float, bool]] = {
    "own aggregates": (Aggregator(), 1.0, False),
    "one average": (Aggregator(weighting=Uniform()), 1.0, False),
    "absent ones count in part": (Aggregator(stale_discount=0.5), 0.5, False),
    "half are drawn": (Aggregator(), 0.5, False),
    "of one length": (Aggregator(), 1.0, True),
}


def main(case: str, folder: Path) -> None:
    for name in ("first", "second"):
        (folder / name).mkdir()
        before = held("VmRSS")
        _RESET.write_text("5")
        finish(lambda: federation(*CASES[case], folder / name), folder / name)  # noqa: B023
    print(json.dumps({"before": before, "most": held("VmHWM")}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
