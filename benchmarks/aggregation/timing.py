"""Interleaved timing: every contestant once a turn, so that a noisy machine is noisy for all of them.

The order is drawn anew for every turn: nobody always follows the one that leaves the caches full of its data.
"""

import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

# Seconds. Threads of the last library go on spinning for a while and would take the next one's processors;
# after the pause a call that is shorter than it is made once untimed, to wake its own.
_PAUSE = 0.05


@dataclass
class Timing:
    """Seconds of each turn after the first; the first call, which may compile, is kept apart."""

    first: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def median(self) -> float:
        """Seconds of a typical turn."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Seconds that a quarter of the turns stay below, and a quarter exceed."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def record(self) -> dict[str, float | list[float]]:
        """For the JSON file."""
        return {
            "median_s": self.median,
            "quartiles_s": list(self.quartiles),
            "best_s": min(self.seconds),
            "seconds": self.seconds,
            "compile_s": max(self.first - self.median, 0.0),
            "peak_extra_bytes": self.peak_bytes,
        }


def interleaved(contestants: dict[str, Callable[[], object]], turns: int) -> dict[str, Timing]:
    """One untimed call each (its memory is watched), then `turns` rounds of all, in any order."""
    timings = {name: Timing() for name in contestants}
    for name, call in contestants.items():
        with PeakMemory() as peak:
            timings[name].first = once(call)
        timings[name].peak_bytes = peak.extra
    stream = random.Random(0)
    for _ in range(turns):
        for name in stream.sample(list(contestants), len(contestants)):
            time.sleep(_PAUSE)
            if timings[name].first < _PAUSE:
                once(contestants[name])
            timings[name].seconds.append(once(contestants[name]))
    return timings


def once(call: Callable[[], object]) -> float:
    """Seconds until the result is there; a call may return its own seconds, measured elsewhere."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    if torch := torch_on_gpu():
        torch.cuda.synchronize()
    return result if isinstance(result, float) else time.perf_counter() - start


class PeakMemory:
    """Most memory held while it is entered, above what was held before; looked at every 5 ms; in bytes."""

    def __enter__(self) -> "PeakMemory":
        self._before = self.peak = held()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()
        self.extra = self.peak - self._before

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, held())


def on_gpu() -> bool:
    """Whether JAX, and then everybody, works on a GPU."""
    return jax.default_backend() != "cpu"


def torch_on_gpu() -> Any:
    """The module torch where it is loaded (not for this alone) and sees a GPU, else None."""
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_available() else None


def held() -> int:
    """Bytes of this process: resident, and on a GPU by torch and by JAX."""
    total = resident()
    if torch := torch_on_gpu():
        total += torch.cuda.memory_allocated()
    if on_gpu():
        total += jax.local_devices()[0].memory_stats()["bytes_in_use"]
    return total


def resident() -> int:
    """Resident memory of this process in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
