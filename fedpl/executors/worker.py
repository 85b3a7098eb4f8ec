"""``python -m fedpl.executors.worker``: a worker process, started by `fedpl.executors.processes`.

It makes what it serves, answers orders, and ends when the process that started it does. With a site it
imports neither JAX nor W&B, with a shard neither torch nor W&B.
"""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from threading import Thread

from fedpl.executors.crew import Done
from fedpl.executors.wire import Mapped, Wire


def main(pipe: int, into: int, out: int) -> None:
    """Answer orders from a pipe.

    Args:
        pipe: Its descriptor.
        into: Of the memory in which tensors come.
        out: Of the memory in which tensors go.
    """
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who gives orders
    wire = Wire(Connection(pipe), out=Mapped(out), into=Mapped(into))
    try:
        serve, make, threads = wire.receive()
        desk = serve(make, threads)
        wire.send(desk.made)
        while isinstance(desk.made.reply, Done):
            wire.send(desk.answer(wire.receive()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # who gave orders is gone


def _end_with(parent: int) -> None:
    """End within a second of the process that started this one, whatever is being done."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
