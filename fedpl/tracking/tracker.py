"""Where a run's records go. The loop talks to this protocol only."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

from fedpl.files import sync_folder, writing
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult

_log = logging.getLogger(__name__)


@runtime_checkable
class Tracker(Protocol):
    """Receives every finished round, then the summary."""

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        """Take a finished round: its record and, for pictures, the result itself."""
        ...

    def finish(self, summary: RunSummary) -> None:
        """Take the summary and close."""
        ...


@contextmanager
def beside(what: str) -> Iterator[None]:
    """What goes on beside a run: no error of it ends the run, each is named with its traceback.

    Args:
        what: What it is, for the message.
    """
    try:
        yield
    except Exception:
        _log.warning("%s failed; the run goes on without", what, exc_info=True)


class Closing(Tracker, Protocol):
    """A tracker that holds something open.

    Attributes:
        where: Where the records are found.
    """

    @property
    def where(self) -> str: ...

    def close(self) -> None:
        """Let go of it, as of something that failed."""
        ...


class Beside:
    """A tracker that cannot end the run: after its first error it is closed and asked no more.

    Args:
        what: What it is, for the message.
        tracker: The tracker.
    """

    def __init__(self, what: str, tracker: Closing) -> None:
        self.what = what
        self._tracker: Closing | None = tracker

    @property
    def where(self) -> str:
        """Where the records are found; empty after an error."""
        return "" if self._tracker is None else self._tracker.where

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        self._try(lambda tracker: tracker.round(record, result))

    def finish(self, summary: RunSummary) -> None:
        self._try(lambda tracker: tracker.finish(summary))

    def _try(self, call: Callable[[Tracker], None]) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is None:
            return
        with beside(self.what):
            call(tracker)
            self._tracker = tracker
            return
        with beside(f"closing {self.what}"):
            tracker.close()


class JsonLines:
    """``metrics.jsonl``: one line a round, on disk before the next round starts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing(path):
            self._file = path.open("a", encoding="utf-8")
            sync_folder(path.parent)

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        with writing(self._path):
            self._file.write(json.dumps(record.to_json(), allow_nan=False) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self, summary: RunSummary) -> None:
        self._file.close()
