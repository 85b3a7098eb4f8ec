"""Task vectors on disk: larger than memory, safe against being cut off while writing.

A store is a directory with `store.json` and one file a row. A row is written to a temporary file, flushed,
and renamed: readers see the old row or the new one. What a crash or a bad disk leaves behind is found by
the checksum of its row, and such a row is never aggregated.
"""

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from ._rowfile import HEADER_BYTES, TYPES, RowWriter, read_header

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class VectorStore:
    """`n` rows of `d` columns under `path`; make one by `create` or `open`."""

    path: Path
    n: int
    d: int
    dtype: Literal["float32", "bfloat16"] = "float32"

    @classmethod
    def create(cls, path: Path | str, n: int, d: int, dtype: str = "float32") -> "VectorStore":
        """An empty store. Raises FileExistsError where one is, ValueError for a bad shape or type."""
        if n < 1 or d < 1 or dtype not in TYPES:
            raise ValueError(f"expected n, d >= 1 and a type of {', '.join(TYPES)}; got {n}, {d}, {dtype!r}")
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        if (path / "store.json").exists():
            raise FileExistsError(f"{path} already holds a store: open it, or choose another directory")
        store = cls(path, n, d, dtype)  # type: ignore[arg-type]
        shape = {key: value for key, value in asdict(store).items() if key != "path"}
        partial = path / "store.json.partial"
        partial.write_text(json.dumps(shape))
        os.replace(partial, path / "store.json")
        return store

    @classmethod
    def open(cls, path: Path | str) -> "VectorStore":
        """The store under `path`. Raises FileNotFoundError where there is none."""
        return cls(Path(path), **json.loads((Path(path) / "store.json").read_text()))

    def row_path(self, row: int) -> Path:
        """The file of a row. Raises IndexError outside of 0 <= row < n."""
        if not 0 <= row < self.n:
            raise IndexError(f"row: expected 0 to {self.n - 1}, got {row}")
        return self.path / f"row-{row:06d}"

    def write(self, row: int, values: Float[np.ndarray, " d"]) -> None:
        """Replaces a row, atomically. Raises ValueError for another number of columns."""
        writer = self.writer(row)
        try:
            writer.append(values)
            writer.commit()
        finally:
            writer.discard()

    def writer(self, row: int) -> RowWriter:
        """For a row that comes in pieces, from left to right."""
        return RowWriter(self.row_path(row), self.d, self.dtype)

    def written(self) -> Bool[np.ndarray, " n"]:
        """Rows that are there, complete in length; the checksum is only compared when a row is read."""
        return np.array([self.checksum(row) is not None for row in range(self.n)])

    def checksum(self, row: int) -> int | None:
        """What the numbers of a row must sum to; None for a row that is missing or cut short."""
        header = read_header(self.row_path(row), self.d, self.dtype)
        return None if header is None else header.checksum

    def read_into(self, row: int, start: int, target: np.ndarray) -> None:
        """Fills `target` (contiguous, of this type's size) with the columns from `start` on.

        Raises:
            OSError: the file is too short, as after a truncation while it is being read.
        """
        raw = memoryview(target.view(np.uint8).data)
        file = os.open(self.row_path(row), os.O_RDONLY)
        try:
            offset, done = HEADER_BYTES + start * TYPES[self.dtype].itemsize, 0
            while done < len(raw):
                got = os.preadv(file, [raw[done:]], offset + done)
                if got == 0:
                    raise OSError(
                        f"{self.row_path(row).name}: expected {len(raw)} bytes, the file ends at {done}"
                    )
                done += got
        finally:
            os.close(file)

    def read(self, row: int) -> np.ndarray:
        """A whole row, its checksum compared.

        Raises:
            ValueError: the row is missing, cut short or damaged; write it again, or mask it.
        """
        expected = self.checksum(row)
        values = np.empty(self.d, TYPES[self.dtype])
        if expected is not None:
            self.read_into(row, 0, values)
        if expected is None or zlib.crc32(values.view(np.uint8).data) != expected:
            raise ValueError(f"row {row} is missing or damaged: write it again, or leave it out by the mask")
        return values

    def verify(self) -> Bool[np.ndarray, " n"]:
        """Rows that are there and whose checksum holds; reads everything once, a few MB at a time."""
        return np.array([self._intact(row) for row in range(self.n)])

    def _intact(self, row: int) -> bool:
        expected, total = self.checksum(row), 0
        if expected is None:
            return False
        step = _CHUNK_BYTES // TYPES[self.dtype].itemsize
        for start in range(0, self.d, step):
            piece = np.empty(min(step, self.d - start), TYPES[self.dtype])
            self.read_into(row, start, piece)
            total = zlib.crc32(piece.view(np.uint8).data, total)
        return total == expected
