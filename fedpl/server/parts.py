"""Parts of the aggregates as files that checkpoints name: what a round did not change is not written again.

A part is a plain ``.npy`` of the rows that one round made; whoever names it also says its digest.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tokenize import TokenError
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.files import move, pieces, replacing, writing
from fedpl.mapped import Mapped
from fedpl.server.models import Models

NAMES = "aggregates-??????.npy"
_MADE, _ROW, _PARTS = "models.made", "models.row", "parts"
_NO_HEADER = (SyntaxError, TypeError, TokenError)  # what NumPy lets through of a header that is no dictionary


def part_path(folder: Path, made: int) -> Path:
    """Where the part of a round lies."""
    return folder / f"aggregates-{made:06d}.npy"


def open_part(folder: Path, made: int, shape: tuple[int, int]) -> Mapped:
    """A part that is filled on disk, under a name that says it is not whole; `write_part` gives it its own.

    Raises:
        UserError: If there is no room for it.
    """
    path = _unfinished(part_path(folder, made))
    with writing(path):
        path.unlink(missing_ok=True)  # of a process that was killed
        begin = np.lib.format.open_memmap(path, "w+", np.float32, shape).offset
        with path.open("r+b") as file:
            if hasattr(os, "posix_fallocate"):  # else a full disk would end the process later on
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            return Mapped(file, shape, begin)


def write_part(folder: Path, made: int, rows: Any) -> str:
    """Write a part, whole or not at all, and say its digest.

    Raises:
        UserError: If it cannot be written.
    """
    path = part_path(folder, made)
    if isinstance(rows, Mapped) and Path(str(rows.filename)) == _unfinished(path).absolute():
        with writing(path):
            rows.flush()
            with _unfinished(path).open("rb") as file:
                os.fsync(file.fileno())
            move(_unfinished(path), path)
        rows.filename = str(path.absolute())  # by which other processes find it from now on
        return _digest(rows)
    own = np.asarray(rows)
    with ThreadPoolExecutor(1) as beside, replacing(path) as file:
        digest = beside.submit(_digest, own)
        np.save(file, own, allow_pickle=False)
    return digest.result()


def names_of(models: Models, digests: Mapping[int, str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """What a checkpoint says of the aggregates: arrays by name, and metadata."""
    named = {str(made): digests[made] for made in sorted(models.parts)}
    return {_MADE: models.made, _ROW: models.row}, {_PARTS: json.dumps(named)}


def named_parts(metadata: Mapping[str, str]) -> dict[int, str]:
    """The parts that a checkpoint names, with their digests; none where it holds the aggregates itself."""
    return {int(made): digest for made, digest in json.loads(metadata.get(_PARTS, "{}")).items()}


def read_models(
    folder: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str], mapped: bool = False
) -> Models | None:
    """The aggregates that a checkpoint names; None where it holds them itself.

    Args:
        folder: Where the checkpoint lies.
        tensors: The checkpoint's.
        metadata: Of it.
        mapped: Whether the rows stay in their files.

    Raises:
        UserError: If a part is absent or damaged.
        KeyError, ValueError: If what is said of them does not fit together.
    """
    named = named_parts(metadata)
    if not named:
        return None
    parts = {made: _read_part(part_path(folder, made), digest, mapped) for made, digest in named.items()}
    models = Models(parts, np.array(tensors[_MADE]), np.array(tensors[_ROW]))
    for made, rows in parts.items():
        used = models.row[models.made == made]
        if used.size and not 0 <= used.min() <= used.max() < len(rows):
            raise ValueError(f"{part_path(folder, made).name} has no row {used.max()}")
    if not set(np.unique(models.made).tolist()) <= parts.keys():
        raise ValueError("a client's aggregate lies in no part")
    return models


def _read_part(path: Path, digest: str, mapped: bool) -> Any:
    try:
        rows = np.load(path, mmap_mode="c" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, *_NO_HEADER) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if rows.ndim != 2 or rows.dtype != np.float32 or _digest(rows) != digest:
        raise UserError(f"{path} is damaged: its checksum does not fit its content")
    if not mapped:
        return jnp.array(rows)
    with path.open("rb") as file:
        return Mapped(file, rows.shape, rows.offset, "c")


def _digest(rows: Float[np.ndarray, "models params"]) -> str:
    """BLAKE2b over shape and numbers."""
    digest = hashlib.blake2b(json.dumps(rows.shape).encode(), digest_size=16)
    for piece in pieces(rows):
        digest.update(piece)
    return digest.hexdigest()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
