"""Runs what a comparison still lacks, one after another on one loaded model."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from fedpl.compare.plan import Entry
from fedpl.errors import UserError
from fedpl.records.messages import Census
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult
from fedpl.runs.experiment import run
from fedpl.runs.origin import data_digest
from fedpl.runs.prepared import Workshop
from fedpl.runs.sharing import shareable
from fedpl.runs.warm import take_over
from fedpl.tracking.progress import round_line


class RoundLines:
    """Prints a line a round.

    Args:
        console: Where to print.
        rounds: How many there will be.
        prefix: What to print before each.
    """

    def __init__(self, console: Console, rounds: int, prefix: str = "") -> None:
        self.console, self.rounds, self.prefix = console, rounds, prefix

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        text = self.prefix + round_line(record, self.rounds)
        self.console.print(Text(text), soft_wrap=True)

    def finish(self, summary: RunSummary) -> None:
        """The comparison's table says the rest."""


def run_missing(entries: Sequence[Entry], console: Console) -> None:
    """Run every entry without a result.

    One that was cut off goes on after the last round that is on disk.

    Args:
        entries: The plan.
        console: Where to print.

    Raises:
        UserError: If data, model or hardware are not as configured.
    """
    workshop = Workshop()
    said: tuple[str, ...] = ()
    for entry in _grouped(entries):
        if entry.summary is not None:
            console.print(Text(f"{entry.method}, seed {entry.seed}: finished before"))
            continue
        resume = entry.folder if (entry.folder / "config.yaml").is_file() else None
        config = entry.config
        lines = RoundLines(console, config.rounds, f"seed {entry.seed}  ")
        watchers = [lines] if config.tracking.progress else []
        prepared = workshop.prepare(config)
        _check_data(entry, entries, prepared.executor.join())
        if prepared.notes != said:
            said = prepared.notes
            for note in said:
                console.print(Text(f"fedpl: seed {entry.seed}: {note}"), soft_wrap=True)
        run(config, Console(quiet=True), watchers=watchers, resume=resume, prepared=prepared)


def _check_data(entry: Entry, entries: Sequence[Entry], census: Census) -> None:
    """Refuse to compare with finished runs of the same seed on other data, or from other models."""
    digest, begun = data_digest(census), None
    if not (entry.folder / "config.yaml").is_file() and (taken := take_over(entry.config, census)):
        begun = taken.earlier.digest
    for other in entries:
        known = other.summary if other.seed == entry.seed else None
        if known is not None and known.data not in (None, digest):
            raise UserError(
                f"{other.folder} was run on other data than {entry.folder} would be: put the data back, or "
                f"name a new --out"
            )
        if begun and known is not None and (known.begun is None or known.begun.digest != begun):
            raise UserError(
                f"{other.folder} began with other models than {entry.config.start_from} has now, which has "
                f"gone on since; name a new --out"
            )


def _grouped(entries: Sequence[Entry]) -> list[Entry]:
    """Entries that train identically next to each other, else in their order: they share a first round."""
    groups: list[list[Entry]] = []
    for entry in entries:
        for group in groups:
            if shareable(group[0].config) == shareable(entry.config):
                group.append(entry)
                break
        else:
            groups.append([entry])
    return [entry for group in groups for entry in group]
