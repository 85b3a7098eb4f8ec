"""Workers as processes of this machine, each with what it serves of its own."""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import IO, Any, NamedTuple

from fedpl.executors.crew import Lost, Order, Raised, Reply
from fedpl.executors.desk import Desk, SiteDesk
from fedpl.executors.machine import importing
from fedpl.executors.wire import Mapped, Wire

_SHOWN = 5  # last lines of what a dead worker wrote
_PATIENCE = 5.0  # seconds in which a process whose pipe is closed ends


class _Worker(NamedTuple):
    process: subprocess.Popen[bytes]
    wire: Wire
    wrote: IO[bytes]


class Processes:
    """A crew of processes; see `fedpl.executors.crew.Crew`.

    They are started by their command, not forked, nor by importing the main program again: scripts and
    notebooks need no guard.

    Args:
        size: How many.
        make: Makes what each serves, in the worker; it and what it holds are pickled.
        threads: Of each.
        devices: GPUs, as CUDA_VISIBLE_DEVICES names them; workers take them in turn.
        desk: Who serves it.
    """

    def __init__(
        self,
        size: int,
        make: Callable[[], Any],
        threads: int,
        devices: Sequence[str] = (),
        desk: type[Desk] = SiteDesk,
    ) -> None:
        self.size = size
        self._make = make
        self._threads = threads
        self._devices = devices
        self._desk = desk
        self._workers: dict[int, _Worker] = {}
        self._making: set[int] = set()

    def start(self, worker: int) -> None:
        self._end(worker)
        ours, theirs = socket.socketpair()
        down, up = Mapped(), Mapped()
        descriptors = (theirs.fileno(), down.descriptor, up.descriptor)
        wrote = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        process = subprocess.Popen(
            [sys.executable, "-m", "fedpl.executors.worker", *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=wrote,
            stderr=wrote,
            env=self._environment(worker),
        )
        theirs.close()
        known = _Worker(process, Wire(Connection(ours.detach()), out=down, into=up), wrote)
        self._workers[worker] = known
        self._making.add(worker)
        known.wire.send((self._desk, self._make, self._threads))

    def send(self, worker: int, order: Order) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # `next` finds that out, with the reason
            self._workers[worker].wire.send(order)

    def next(self, timeout: float | None) -> tuple[int, Reply] | None:
        pipes = {known.wire.pipe: worker for worker, known in self._workers.items()}
        for pipe in wait(list(pipes), timeout):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                reply = self._workers[worker].wire.receive().heard(worker)
            except (EOFError, ConnectionResetError):
                return worker, Lost(self._end(worker, dying=True))
            if worker not in self._making:
                return worker, reply
            self._making.discard(worker)
            if isinstance(reply, Raised):  # of the first order
                return worker, reply
            return self.next(timeout)
        return None

    def close(self) -> None:
        for worker in tuple(self._workers):
            self._end(worker)

    def _end(self, worker: int, dying: bool = False) -> str:
        """End a worker, unless it is about to end; how it ended, with its last words."""
        known = self._workers.pop(worker, None)
        self._making.discard(worker)
        if known is None:
            return ""
        known.wire.close()
        try:
            code = known.process.wait(_PATIENCE if dying else 0)
        except subprocess.TimeoutExpired:
            known.process.kill()
            code = known.process.wait()
        known.wrote.seek(0)
        last = known.wrote.read().decode(errors="replace").strip().splitlines()[-_SHOWN:]
        known.wrote.close()
        how = f"signal {-code}" if code < 0 else f"code {code}"
        return f"its process ended with {how}" + (f" ({' | '.join(last)})" if last else "")

    def _environment(self, worker: int) -> Mapping[str, str]:
        own = importing()
        own |= {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(self._threads)}
        if self._devices:
            own["CUDA_VISIBLE_DEVICES"] = self._devices[worker % len(self._devices)]
        return own
