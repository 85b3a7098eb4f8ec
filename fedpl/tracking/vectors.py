"""A run's task vectors on disk, one file a round, for aggregating them again."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.files import write_rows

# Files of NumPy's know no bfloat16: such a file holds the 16 bits of each number as an unsigned integer.
_ENDINGS = {"f32": "npy", "bf16": "bf16.npy"}


def store_vectors(
    folder: Path,
    round: int,
    rows: Iterable[Float[np.ndarray, "params"]],
    shape: tuple[int, int],
    precision: bool | Literal["bf16", "f32"],
) -> None:
    """Write a round's task vectors; the file is whole or absent.

    Args:
        folder: The run's ``vectors/``.
        round: Number of the round, from 1.
        rows: The task vectors, one by one; NaN for clients that took no part.
        shape: How many, of how many numbers.
        precision: bf16 takes half the space of f32, which True means too, and keeps 8 bits of each number.
    """
    if precision == "bf16":
        rows = (row.astype(ml_dtypes.bfloat16).view(np.uint16) for row in rows)
    path = folder / f"round-{round:04d}.{_ENDINGS['bf16' if precision == 'bf16' else 'f32']}"
    write_rows(path, rows, shape, np.uint16 if precision == "bf16" else np.float32)


def stored_rounds(folder: Path) -> dict[int, Path]:
    """The files of a run's ``vectors/`` by round, in order."""
    found = {int(path.name[6:10]): path for path in folder.glob("round-[0-9][0-9][0-9][0-9].*npy")}
    return dict(sorted(found.items()))


def read_vectors(path: Path) -> Float[np.ndarray, "clients params"]:
    """A round's task vectors as float32.

    Raises:
        UserError: If the file is not one that `store_vectors` wrote.
    """
    try:
        values = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} holds no task vectors written by fedpl: {error}") from error
    return values.view(ml_dtypes.bfloat16).astype(np.float32) if values.dtype == np.uint16 else values
