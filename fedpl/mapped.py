"""Matrices in files, larger than memory: rows are memory of the file's, columns are read and written apart.

What is touched of a mapped file stays in memory until it is given back, and a page that holds a few of a
row's columns brings its neighbours: some columns of every row go through reads and writes of their own.
"""

import ctypes
import math
import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from jaxtyping import Float, Int

from fedpl.files import release, writing

_TYPE = np.dtype(np.float32)
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc alone


class Mapped(np.memmap):
    """A float32 matrix in a file. Pickled, it is the name of its file: who loads it has the same numbers.

    Args:
        file: Open for what is to be done with it; closed by whoever opened it.
        shape: Of the matrix.
        begin: Where it begins in the file.
        mode: As of `numpy.memmap`.
    """

    _file: int | None = None  # a view has none: it may begin elsewhere
    _begin: int

    def __new__(
        cls, file: BinaryIO, shape: tuple[int, ...], begin: int = 0, mode: Literal["r+", "c"] = "r+"
    ) -> "Mapped":
        matrix = cast(Mapped, super().__new__(cls, file, _TYPE, mode, begin, shape))
        matrix._file, matrix._begin = os.dup(file.fileno()), begin
        weakref.finalize(matrix, os.close, matrix._file)
        return matrix

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self._file is None:
            return np.array(self).__reduce_ex__(protocol)
        if self.filename is None:
            raise ValueError("expected a file with a name, which another process can open")
        return _opened, (str(self.filename), self.shape, self._begin)

    def sync(self) -> None:
        """Force what has been written to where other machines see it."""
        self.flush()
        if self._file is not None:
            os.fsync(self._file)

    def look_again(self) -> None:
        """See what other machines have written: a network's file system asks for it when a file is opened."""
        if self.filename is not None:
            os.close(os.open(self.filename, os.O_RDONLY))

    def read_row(self, row: int, start: int, into: Float[np.ndarray, "columns"]) -> None:
        """Fill an array with a row's columns from there on.

        Raises:
            OSError: If the file is shorter.
        """
        if self._file is None:
            into[:] = self[row, start : start + len(into)]
            return
        left, place = memoryview(into.view(np.uint8).data), self._place(row, start)
        while left:
            got = os.preadv(self._file, [left], place)
            if got == 0:
                raise OSError(f"expected a file with {self.shape} numbers, it ends at {place} bytes")
            left, place = left[got:], place + got

    def write_row(self, row: int, start: int, values: Float[np.ndarray, "columns"]) -> None:
        """Put these into a row from there on.

        Raises:
            UserError: If the disk does not take them.
        """
        if self._file is None:
            self[row, start : start + len(values)] = values
            return
        left, place = memoryview(np.require(values, _TYPE, "C").view(np.uint8).data), self._place(row, start)
        with writing(Path(str(self.filename))):
            while left:
                done = os.pwrite(self._file, left, place)
                left, place = left[done:], place + done

    def _place(self, row: int, start: int) -> int:
        return self._begin + _TYPE.itemsize * (int(row) * self.shape[1] + start)


class Settling:
    """Gives back the memory of rows that have been touched, each time that they have come to so many bytes.

    Args:
        arrays: What the rows are of; those in files count alone.
        row: Bytes of a row.
        limit: How many may be in memory.
    """

    def __init__(self, arrays: Iterable[Any], row: int, limit: int) -> None:
        self._arrays = tuple(arrays)
        self._many = max(limit // max(row, 1), 1)
        self._touched = 0

    def __call__(self) -> None:
        """A row has been touched."""
        self._touched += 1
        if self._touched >= self._many:
            self._touched = 0
            release(*self._arrays)


def scratch(folder: Path, shape: tuple[int, ...], name: str | None = None) -> Mapped:
    """A float32 array of zeros in a file that is gone with the array.

    Args:
        folder: Where it lies.
        shape: Of the array.
        name: By which other processes find it; after a kill it is left behind, until it is asked for again.
            None: it has none, and is gone with the process, also after a kill.

    Raises:
        UserError: If there is no room for it.
    """
    size = _TYPE.itemsize * math.prod(shape)
    with writing(folder), _nameless(folder) if name is None else _named(folder / name) as file:
        if size and hasattr(os, "posix_fallocate"):  # else a full disk would end the process later on
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
        matrix = Mapped(file, shape)
    if name is not None:
        weakref.finalize(matrix, _remove, folder / name, (folder / name).stat().st_ino)
    return matrix


def _nameless(folder: Path) -> BinaryIO:
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _named(path: Path) -> BinaryIO:
    path.unlink(missing_ok=True)  # of a process that was killed
    return path.open("w+b")


def _remove(path: Path, number: int) -> None:
    """Remove a file, unless its name is another's by now."""
    if path.exists() and path.stat().st_ino == number:
        path.unlink()


def _opened(name: str, shape: tuple[int, ...], begin: int) -> Mapped:
    with Path(name).open("r+b") as file:
        return Mapped(file, shape, begin)


def trim() -> None:
    """Give back what has been freed: the C library keeps blocks of up to 32 MB for whoever asks next."""
    if _trim is not None:
        _trim(0)


def read_columns(
    parts: Sequence[Any], rows: Sequence[int] | Int[np.ndarray, "rows"], columns: slice
) -> Float[np.ndarray, "rows _"]:
    """Some columns of rows, each of its own matrix, in memory of their own.

    Args:
        parts: The matrices, row by row; in files or not.
        rows: Which row of it.
        columns: Which columns, start and stop.
    """
    found = np.empty((len(rows), columns.stop - columns.start), _TYPE)
    for into, part, row in zip(found, parts, rows, strict=True):
        if isinstance(part, Mapped):
            part.read_row(row, columns.start, into)
        else:
            into[:] = np.asarray(part)[row, columns]
    return found


def write_columns(matrix: np.ndarray, columns: slice, values: Float[np.ndarray, "rows _"]) -> None:
    """Put these into the first rows of a matrix, in a file or not.

    Raises:
        UserError: If the disk does not take them.
    """
    if not isinstance(matrix, Mapped):
        matrix[: len(values), columns] = values
        return
    for row, own in enumerate(values):
        matrix.write_row(row, columns.start, own)
