"""Where a run's records go. The loop talks to this protocol only."""

import json
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from fedpl.files import writing
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult


@runtime_checkable
class Tracker(Protocol):
    """Receives every finished round, then the summary."""

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        """Take a finished round: its record and, for pictures, the result itself."""
        ...

    def finish(self, summary: RunSummary) -> None:
        """Take the summary and close."""
        ...


class JsonLines:
    """``metrics.jsonl``: one line a round, on disk before the next round starts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = path.open("a", encoding="utf-8")

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        with writing(self._path):
            self._file.write(json.dumps(record.to_json(), allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self, summary: RunSummary) -> None:
        self._file.close()
