"""Where a run's records go. The loop talks to this protocol only."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fedpl.files import writing
from fedpl.rounds.loop import RoundResult


@runtime_checkable
class Tracker(Protocol):
    """Receives every finished round, then the summary."""

    def round(self, record: dict[str, Any], result: RoundResult) -> None:
        """Take a finished round: its record and, for pictures, the result itself."""
        ...

    def finish(self, summary: dict[str, Any]) -> None:
        """Take the summary and close."""
        ...


class JsonLines:
    """``metrics.jsonl``: one line a round, on disk before the next round starts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = path.open("a", encoding="utf-8")

    def round(self, record: dict[str, Any], result: RoundResult) -> None:
        with writing(self._path):
            self._file.write(json.dumps(record, allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self, summary: dict[str, Any]) -> None:
        self._file.close()


def read_metrics(path: Path) -> Sequence[dict[str, Any]]:
    """All rounds of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
