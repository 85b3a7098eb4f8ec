"""Messages between two processes on one machine: bytes in a pipe, arrays in memory that both have mapped."""

import mmap
import os
import pickle
import tempfile
from multiprocessing.connection import Connection
from typing import Any

_ALIGN = 64


class Mapped:
    """Memory of two processes, in a file without a name: it is gone when both are.

    One writes, the other reads; the writer waits with the next message until the last one has been answered.

    Args:
        descriptor: Of the file; None: a new one.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = _nameless() if descriptor is None else descriptor
        self._memory: mmap.mmap | None = None

    def room(self, size: int) -> memoryview:
        """At least so many bytes of it."""
        if self._memory is None or len(self._memory) < size:
            known = os.fstat(self.descriptor).st_size
            if known < size:
                os.ftruncate(self.descriptor, size)
            # What was mapped stays so while an array looks at it.
            self._memory = mmap.mmap(self.descriptor, max(known, size))
        return memoryview(self._memory)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fedpl")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Wire:
    """One end of the way between two processes.

    Args:
        pipe: For everything but numbers.
        out: Where this end's arrays are put.
        into: Where the other end's are.
    """

    def __init__(self, pipe: Connection, out: Mapped, into: Mapped) -> None:
        self.pipe = pipe
        self._out = out
        self._into = into

    def send(self, message: Any) -> None:
        """Send a message."""
        buffers: list[pickle.PickleBuffer] = []
        content = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        parts = [buffer.raw() for buffer in buffers]
        places, end = [], 0
        for part in parts:
            places.append((end, part.nbytes))
            end += -(-part.nbytes // _ALIGN) * _ALIGN
        if parts:
            room = self._out.room(max(end, _ALIGN))
            for (start, size), part in zip(places, parts, strict=True):
                room[start : start + size] = part
        self.pipe.send_bytes(pickle.dumps((places, end)))
        self.pipe.send_bytes(content)

    def receive(self) -> Any:
        """The next message.

        Raises:
            EOFError: If the other end is gone.
        """
        places, end = pickle.loads(self.pipe.recv_bytes())
        content = self.pipe.recv_bytes()
        room = self._into.room(max(end, _ALIGN)) if places else memoryview(b"")
        # Copies: the other end writes over it with its next message.
        return pickle.loads(
            content, buffers=[bytearray(room[start : start + size]) for start, size in places]
        )

    def close(self) -> None:
        """Let go of everything."""
        self.pipe.close()
        self._out.close()
        self._into.close()
