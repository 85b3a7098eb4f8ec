"""What all records can do: become JSON, come back from it, lie in a file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from fedpl.errors import UserError
from fedpl.files import write_array, write_json
from fedpl.records.plain import decode, encode, is_large, parts, same

_SEAL = "checksum"
R = TypeVar("R", bound="Record")
K = TypeVar("K", bound="Kept")


class Record:
    """A frozen dataclass that JSON can hold; its subclasses' fields are the documented schema."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; a matrix of more than 64 × 64 is the name of the file that `Kept.write` makes."""
        found: dict[str, Any] = encode(self)
        return found

    @classmethod
    def from_json(cls: type[R], value: Any, source: str | Path = "JSON") -> R:
        """The record that `to_json` made plain.

        Args:
            value: Plain values.
            source: The file they are from: files of large matrices lie beside it, and errors name it.

        Raises:
            UserError: Naming file and key, if it is not of this form.
        """
        found: R = decode(cls, value, (str(source),))
        return found

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            same(getattr(self, part.name), getattr(other, part.name)) for part in parts(type(self))
        )

    __hash__ = None  # type: ignore[assignment]


class Kept(Record):
    """A record in a file of its own.

    Attributes:
        FILE: The file's name in its folder.
        SEALED: Whether it holds a digest of itself, so that a changed digit is found when it is read.
    """

    FILE: ClassVar[str]
    SEALED: ClassVar[bool] = False

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all, and large matrices beside it.

        Raises:
            UserError: If it cannot be written.
        """
        large = {part.name: getattr(self, part.name) for part in parts(type(self))}
        large = {k: v for k, v in large.items() if isinstance(v, np.ndarray) and is_large(v)}
        if large:  # never beside another record's matrices
            (folder / self.FILE).unlink(missing_ok=True)
        for name, matrix in large.items():
            write_array(folder / f"{name}.npy", matrix.astype(np.float32))
        value = self.to_json()
        write_json(folder / self.FILE, {**value, _SEAL: _seal(value, large)} if self.SEALED else value)

    @classmethod
    def read(cls: type[K], folder: Path) -> K:
        """What `write` wrote in a folder.

        Raises:
            UserError: If it is absent, cut off or not of this form.
        """
        path = folder / cls.FILE
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        seal = value.pop(_SEAL, None) if cls.SEALED and isinstance(value, dict) else None
        found = cls.from_json(value, path)
        if cls.SEALED:
            large = {part.name: getattr(found, part.name) for part in parts(cls)}
            large = {k: v for k, v in large.items() if isinstance(v, np.ndarray) and is_large(v)}
            if seal != _seal(value, large):
                raise UserError(f"{path} is damaged: its checksum does not fit its content")
        return found


def _seal(value: dict[str, Any], large: Mapping[str, np.ndarray]) -> str:
    """BLAKE2b over a record's plain values and the matrices beside it."""
    digest = hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16)
    for name, matrix in sorted(large.items()):
        digest.update(name.encode() + np.ascontiguousarray(matrix, np.float32).tobytes())
    return digest.hexdigest()
