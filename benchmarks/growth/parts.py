"""Where a run's time, bytes and memory go, by wrapping what does the work."""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

_STATUS, _IO, _RESET = (Path("/proc/self") / name for name in ("status", "io", "clear_refs"))


class Parts:
    """What each part has taken since it was last asked.

    Args:
        clock: What seconds are read from: of a clock, or with `time.process_time` of the processor.

    Attributes:
        seconds: By part.
        written: Bytes handed to the system for files, by part.
        peaks: Bytes of memory beyond what the process began with, by part; over the whole run.
        resident: Most bytes that the process has held at all.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = defaultdict(float)
        self.written: dict[str, int] = defaultdict(int)
        self.peaks: dict[str, int] = defaultdict(int)
        self.resident = 0
        self._before = _kilobytes("VmRSS")
        self._depth = 0
        _RESET.write_text("5")

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Count every call of a function or method; what is counted inside another one belongs to that."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return function(*args, **kwargs)
            self.peak("rest")
            self._depth, begin, written = 1, self.clock(), _written()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += self.clock() - begin
                self.written[part] += _written() - written
                self._depth = 0
                self.peak(part)

        setattr(owner, name, counted)

    def after(self, owner: Any, name: str, then: Callable[[], None]) -> None:
        """Call something after every call of a function or method."""
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def followed(*args: Any, **kwargs: Any) -> Any:
            found = function(*args, **kwargs)
            then()
            return found

        setattr(owner, name, followed)

    def peak(self, part: str) -> None:
        """Enter the most memory since the last call."""
        most = _kilobytes("VmHWM")
        self.peaks[part] = max(self.peaks[part], (most - self._before) * 1024)
        self.resident = max(self.resident, most * 1024)
        _RESET.write_text("5")

    def take(self) -> dict[str, dict[str, float]]:
        """Seconds and bytes since the last call."""
        found: dict[str, dict[str, float]] = {"seconds": dict(self.seconds), "written": dict(self.written)}
        self.seconds.clear()
        self.written.clear()
        return found


def _kilobytes(name: str) -> int:
    return int(_STATUS.read_text().partition(f"{name}:")[2].split()[0])


def _written() -> int:
    return int(_IO.read_text().partition("wchar:")[2].split()[0])
