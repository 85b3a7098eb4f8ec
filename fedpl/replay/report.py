"""What a replay says: a table, and the same as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpl.files import write_json
from fedpl.records.plain import inline
from fedpl.records.record import Record
from fedpl.records.scores import Metric, Scores, Summary
from fedpl.terminal import print_table

NOTE = (
    "chain: the rule on the recorded task vectors from round 1 on; only round 1 is what training under it "
    "would have given, later vectors were trained from other aggregates. one step: the recorded rule until "
    "the round before, the rule in this one; exact for this step."
)


@dataclass(frozen=True, kw_only=True)
class SplitScores:
    """Scores on a split.

    Attributes:
        statistics: Over the clients.
        clients: By client.
    """

    statistics: Summary = inline()
    clients: Mapping[str, Scores]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Scores of one rule in one reading.

    Attributes:
        rule: The rule's name.
        reading: recorded, chain or one step.
        round: After which round.
        splits: By split.
    """

    rule: str
    reading: str
    round: int
    splits: Mapping[str, SplitScores] = inline()


@dataclass(frozen=True, eq=False, kw_only=True)
class Replay(Record):
    """A replay.

    Attributes:
        note: What the readings are.
        recorded_state_error: Largest difference between the recorded rule's replay and the run's own state.
        readings: What was found.
    """

    note: str
    recorded_state_error: float | None
    readings: tuple[Reading, ...]


def write_replay(
    folder: Path,
    readings: Sequence[Reading],
    metrics: Sequence[Metric],
    error: float | None,
    console: Console,
) -> tuple[Path, Replay]:
    """Print the table and write ``replays/replay-NNNN.json`` in the run directory.

    Args:
        folder: The run directory.
        readings: What was found.
        metrics: What a score consists of.
        error: Largest difference between the recorded rule's replay and the run's own state.
        console: Where to print.

    Returns:
        The file, and what it holds.
    """
    print_table(console, _table(readings, metrics))
    console.print(NOTE, highlight=False)
    if error is not None:
        same = "the same, bit for bit" if error == 0 else f"largest difference {error:.2g}"
        console.print(
            f"recorded rule, replayed, beside the state that the run saved: {same}", highlight=False
        )
    target = folder / "replays"
    target.mkdir(exist_ok=True)
    path = target / f"replay-{len(list(target.glob('replay-*.json'))) + 1:04d}.json"
    replay = Replay(note=NOTE, recorded_state_error=error, readings=tuple(readings))
    write_json(path, replay.to_json())
    console.print(Text(f"replay: {path}"), soft_wrap=True)
    return path, replay


def _table(readings: Sequence[Reading], metrics: Sequence[Metric]) -> Table:
    primary, *others = metrics
    title = f"{primary.label[:1].upper()}{primary.label[1:]} of the aggregates θ̄ over clients"
    unit = f", {primary.unit}" if primary.unit else ""
    table = Table(title=f"{title}{unit}, without training again")
    for name in ("rule", "reading", "after round", "split"):
        table.add_column(name)
    tenth = "lowest" if primary.higher else "highest"
    for name in ("mean", "worst", f"{tenth} decile", *(metric.label for metric in others)):
        table.add_column(name, justify="right")
    for reading in readings:
        for split, found in reading.splits.items():
            tails = (found.statistics.mean, found.statistics.worst, found.statistics.bottom_decile)
            cells = [primary.shown(scores[primary.name]) for scores in tails]
            cells += [metric.shown(found.statistics.mean[metric.name]) for metric in others]
            table.add_row(Text(reading.rule), reading.reading, str(reading.round), split, *cells)
    return table
