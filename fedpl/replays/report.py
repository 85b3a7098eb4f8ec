"""What a replay says: a table, and the same as JSON."""

from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from fedpl.files import write_json
from fedpl.scores import Scores
from fedpl.tracking.records import finite, statistics

NOTE = (
    "chain: the rule on the recorded task vectors from round 1 on; only round 1 is what training under it "
    "would have given, later vectors were trained from other aggregates. one step: the recorded rule until "
    "the round before, the rule in this one; exact for this step."
)


class Reading(NamedTuple):
    """Scores of one rule in one reading.

    Attributes:
        name: The rule's name.
        reading: recorded, chain or one step.
        round: After which round.
        scores: Scores by split and client.
    """

    name: str
    reading: str
    round: int
    scores: dict[str, dict[str, Scores]]

    def entry(self) -> dict[str, Any]:
        """The same as plain values."""
        splits = {
            split: {**statistics(found), "clients": {c: s._asdict() for c, s in found.items()}}
            for split, found in self.scores.items()
        }
        return finite({"rule": self.name, "reading": self.reading, "round": self.round, **splits})


def write_replay(folder: Path, readings: list[Reading], error: float | None, console: Console) -> Path:
    """Print the table and write ``replays/replay-NNNN.json`` in the run directory.

    Args:
        folder: The run directory.
        readings: What was found.
        error: Largest difference between the recorded rule's replay and the run's own state.
        console: Where to print.
    """
    console.print(_table(readings))
    console.print(NOTE, highlight=False)
    if error is not None:
        same = "the same, bit for bit" if error == 0 else f"largest difference {error:.2g}"
        console.print(
            f"recorded rule, replayed, beside the state that the run saved: {same}", highlight=False
        )
    target = folder / "replays"
    target.mkdir(exist_ok=True)
    path = target / f"replay-{len(list(target.glob('replay-*.json'))) + 1:04d}.json"
    content = {"note": NOTE, "recorded_state_error": error, "readings": [r.entry() for r in readings]}
    write_json(path, content)
    console.print(f"replay: {path}", highlight=False, soft_wrap=True)
    return path


def _table(readings: list[Reading]) -> Table:
    table = Table(title="Accuracy of the aggregates θ̄ over clients, %, without training again")
    for name in ("rule", "reading", "after round", "split"):
        table.add_column(name)
    for name in ("mean", "worst", "lowest decile", "macro-F1"):
        table.add_column(name, justify="right")
    for reading in readings:
        for split, found in reading.entry().items():
            if split not in ("validation", "test"):
                continue
            cells = [found[statistic]["accuracy"] for statistic in ("mean", "worst", "bottom_decile")]
            cells.append(found["mean"]["macro_f1"])
            texts = [f"{100 * cell:.1f}" for cell in cells]
            table.add_row(reading.name, reading.reading, str(reading.round), split, *texts)
    return table
