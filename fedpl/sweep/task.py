"""A trial as it is handed to whoever runs it."""

from pathlib import Path
from typing import Any, NamedTuple

from fedpl.sweep.check import Trials
from fedpl.sweep.plan import Sweep


class Task(NamedTuple):
    """A trial of a sweep.

    Attributes:
        sweep: The sweep.
        folder: The sweep's directory.
        number: The trial's number, from 0.
        values: What it sets.
        trials: What all trials share.
    """

    sweep: Sweep
    folder: Path
    number: int
    values: dict[str, Any]
    trials: Trials

    @property
    def run_dir(self) -> Path:
        """The trial's run directory."""
        return self.folder / "trials" / f"trial-{self.number:04d}"
