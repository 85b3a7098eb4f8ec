"""One task vector in one file: a 64-byte header with a checksum, then the numbers.

A file a row, not one big matrix: a row is replaced by a rename, which is atomic, and clients in different
processes write their rows without a lock.
"""

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

_MAGIC = b"fedplrow"
_LAYOUT = struct.Struct("<8sQ16sI28x")  # magic, columns, type, checksum of the payload; 64 bytes
HEADER_BYTES = _LAYOUT.size
TYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}


class Header(NamedTuple):
    """What a row file claims about its payload."""

    columns: int
    dtype: str
    checksum: int


def pack(header: Header) -> bytes:
    """The 64 bytes at the start of a row file."""
    return _LAYOUT.pack(_MAGIC, header.columns, header.dtype.encode(), header.checksum)


def read_header(path: Path, columns: int, dtype: str) -> Header | None:
    """The header, or None for a file that is missing, cut short, or not a row of this shape and type."""
    try:
        with path.open("rb") as file:
            raw, size = file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return None
    if len(raw) < HEADER_BYTES or size != HEADER_BYTES + columns * TYPES[dtype].itemsize:
        return None
    magic, found, kind, checksum = _LAYOUT.unpack(raw)
    header = Header(found, kind.rstrip(b"\0").decode("ascii", "replace"), checksum)
    return header if magic == _MAGIC and header[:2] == (columns, dtype) else None


class RowWriter:
    """Writes a row from left to right into a file of its own, which takes the row's name when complete."""

    def __init__(self, path: Path, columns: int, dtype: str) -> None:
        self._path, self._columns, self._dtype = path, columns, dtype
        self._partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        self._partial.write_bytes(bytes(HEADER_BYTES))
        self._checksum = 0
        self._bytes = 0

    def append(self, values: np.ndarray) -> None:
        """Adds the next columns."""
        raw = np.ascontiguousarray(values, TYPES[self._dtype]).view(np.uint8)
        self._checksum = zlib.crc32(raw.data, self._checksum)
        self._bytes += raw.nbytes
        with self._partial.open("ab") as file:
            file.write(raw.data)

    def commit(self) -> None:
        """Makes the row the current one: on disk first, then renamed.

        Raises:
            ValueError: fewer or more columns than the row has were appended.
        """
        found = self._bytes // TYPES[self._dtype].itemsize
        if found != self._columns:
            raise ValueError(f"{self._path.name}: expected {self._columns} columns, got {found}")
        with self._partial.open("r+b") as file:
            file.write(pack(Header(self._columns, self._dtype, self._checksum)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(self._partial, self._path)

    def discard(self) -> None:
        """Drops what was written; the row stays what it was."""
        self._partial.unlink(missing_ok=True)
