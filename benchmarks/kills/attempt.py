"""One attempt at a run: a forked child that runs ``python -m fedpl.fit`` and dies by SIGKILL at an instant.

What is heavy is imported here, once, before the first fork: an attempt then costs what its run costs.
"""

import mmap
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import numpy as np
import scipy.cluster.hierarchy  # noqa: F401
import sklearn.metrics  # noqa: F401
import wandb  # noqa: F401
from jax._src import xla_bridge

import fedpl.pictures.plots
import fedpl.rounds.loop
import fedpl.runs.experiment
import fedpl.server.step
import fedpl.tracking.weights_and_biases
from fedpl.endings import run_main
from fedpl.fit import main
from fedpl.runs.standing import Standing
from fedpl.server import Aggregator

PHASES = (
    "starting",
    "resuming",
    "first round",
    "training",
    "server",
    "recording",
    "closing",
    "pictures",
    "W&B",
)
# Where a run is while these are at work; innermost wins.
_WHERE: tuple[tuple[Any, str, str], ...] = (
    (Standing, "finish", "recording"),
    (fedpl.rounds.loop, "gather", "training"),
    (Aggregator, "update", "server"),
    (fedpl.runs.experiment, "deliver", "closing"),
    (fedpl.runs.experiment, "close", "closing"),
    (fedpl.pictures.plots, "draw_run", "pictures"),
    (fedpl.tracking.weights_and_biases.WandbTracker, "__init__", "W&B"),
    (fedpl.tracking.weights_and_biases.WandbTracker, "round", "W&B"),
    (fedpl.tracking.weights_and_biases.WandbTracker, "finish", "W&B"),
)
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


class Instant(NamedTuple):
    """When to die.

    Attributes:
        kind: time: after so many seconds, from outside; event: right before the so many-th change of a file,
            or where a phase begins or ends.
        at: How many.
    """

    kind: Literal["time", "event"]
    at: float


class Ended(NamedTuple):
    """How an attempt ended.

    Attributes:
        code: Exit code; −9: killed.
        phase: Where it was then, one of `PHASES`.
        events: Changes of files and of the phase that it had come to.
        seconds: How long it took.
    """

    code: int
    phase: str
    events: int
    seconds: float


class _Seen:
    """Where a child is, in memory that its parent still reads when it is gone.

    Args:
        last: The event at which the child dies; 0: none.
    """

    def __init__(self, last: float) -> None:
        self._last = last
        self._shared = np.frombuffer(mmap.mmap(-1, 16), np.int64)

    @property
    def phase(self) -> str:
        return PHASES[self._shared[0]]

    @phase.setter
    def phase(self, name: str) -> None:
        self._shared[0] = PHASES.index(name)

    @property
    def events(self) -> int:
        return int(self._shared[1])

    def event(self) -> None:
        """Count, and die if it is time."""
        self._shared[1] += 1
        if self.events == self._last:
            os.killpg(0, signal.SIGKILL)


def check_forkable() -> None:
    """Whether this process may fork children that compute.

    Raises:
        RuntimeError: If a thread runs that a child would miss, or JAX has begun to compute.
    """
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    # The allocator of Arrow has a thread, which it starts again after a fork.
    others = [name for name in names if name != "jemalloc_bg_thd"][1:]
    if others or threading.active_count() > 1 or xla_bridge.backends_are_initialized():
        raise RuntimeError(f"cannot fork beside the threads {others}, or after JAX has begun to compute")


def attempt(
    argv: Sequence[str], folder: Path, log: Path, resume: bool = False, instant: Instant | None = None
) -> Ended:
    """Run ``python -m fedpl.fit`` with these arguments once.

    Args:
        argv: The arguments.
        folder: Changes of files below it are counted.
        log: Where its output goes.
        resume: Whether it goes on with a run.
        instant: When to die; None: not at all.
    """
    seen = _Seen(instant.at if instant is not None and instant.kind == "event" else 0)
    seen.phase = "resuming" if resume else "starting"
    code, seconds = forked(lambda: _run(argv, folder, log, seen), instant)
    return Ended(code, seen.phase, seen.events, seconds)


def forked(work: Callable[[], int], instant: Instant | None = None) -> tuple[int, float]:
    """Do something in a child with a process group of its own; its exit code and seconds."""
    check_forkable()
    alive, held = os.pipe()
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _as_child(work)
    os.close(held)  # the pipe is at its end when the child is
    os.setpgid(pid, pid)
    try:
        limit = instant.at if instant is not None and instant.kind == "time" else None
        if not select.select([alive], [], [], limit)[0]:
            os.killpg(pid, signal.SIGKILL)
            select.select([alive], [], [])
    finally:
        seconds = time.monotonic() - begin
        # Whatever is left of the group goes too: W&B's own process, which a power cut would end as well.
        os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(alive)
    return os.waitstatus_to_exitcode(status), seconds


def _as_child(work: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(argv: Sequence[str], folder: Path, log: Path, seen: _Seen) -> int:
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for owner, name, phase in _WHERE:
        _tell(owner, name, phase, seen)
    _watch(folder, seen)
    try:
        run_main(lambda: main(argv))
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1


def _tell(owner: Any, name: str, phase: str, seen: _Seen) -> None:
    """Have a function say where the run is while it is at work."""
    inner: Callable[..., Any] = getattr(owner, name)

    def telling(*arguments: Any, **named: Any) -> Any:
        before, seen.phase = seen.phase, phase
        try:
            seen.event()
            result = inner(*arguments, **named)
            seen.event()
            return result
        finally:
            seen.phase = before

    setattr(owner, name, telling)


def _watch(folder: Path, seen: _Seen) -> None:
    """Count changes of files below a folder, right before each is made."""
    prefix = str(folder)

    def changes(event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            path, _, flags = arguments
            return bool(flags & (os.O_WRONLY | os.O_RDWR)) and str(path).startswith(prefix)
        # Within a folder that is open (shutil.rmtree) names are relative: they are counted too.
        return event in _CHANGES and (str(arguments[0]).startswith(prefix) or arguments[-1] not in (None, -1))

    sys.addaudithook(lambda event, arguments: seen.event() if changes(event, arguments) else None)
    sync: Callable[[Any], None] = os.fsync

    def watched(fd: Any) -> None:
        seen.event()
        sync(fd)

    os.fsync = watched
