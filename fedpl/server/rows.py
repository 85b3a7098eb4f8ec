"""Matrices with equal rows as they lie on disk: every row once, and which one stands where.

An average is one row for all clients, a cluster's model one for its members.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np

_INDEX = "rows."


def once(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors; of one with equal rows only the distinct ones, with an index beside it.

    Args:
        tensors: By name; no name begins with ``rows.``.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        distinct, index = _distinct(tensor) if tensor.ndim > 1 and tensor.size else (tensor, None)
        found[name] = distinct
        if index is not None:
            found[_INDEX + name] = index
    return found


def spread(
    tensors: Mapping[str, np.ndarray], into: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The tensors that `once` was given.

    Args:
        tensors: What it gave.
        into: Where some of them belong.

    Raises:
        ValueError: If an index does not fit its rows.
    """
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith(_INDEX)}
    for name, index in tensors.items():
        if name.startswith(_INDEX):
            rows = found.get(name.removeprefix(_INDEX))
            if rows is None or rows.ndim != 2 or index.dtype != np.int32 or _outside(index, len(rows)):
                raise ValueError(f"{name} does not fit its rows")
            if name.removeprefix(_INDEX) not in (into or {}):
                found[name.removeprefix(_INDEX)] = rows[index]
    for name in found.keys() & (into or {}).keys():
        rows, target = found[name], (into or {})[name]
        index = tensors.get(_INDEX + name, np.arange(len(rows)))
        if (len(index), *rows.shape[1:]) != target.shape:
            raise ValueError(f"{name} has other clients or parameters than this run")
        for place, row in enumerate(index):
            target[place] = rows[row]
        found[name] = target
    return found


def _outside(index: np.ndarray, rows: int) -> bool:
    return bool(index.size) and not 0 <= index.min() <= index.max() < rows


def _distinct(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The distinct rows along the last axis, bit by bit, and which one stands where; None: all are."""
    rows = np.ascontiguousarray(tensor).reshape(-1, tensor.shape[-1])
    bits = rows.view(np.uint8).reshape(len(rows), -1)
    ends = [row[:64].tobytes() + row[-64:].tobytes() for row in bits]
    alike = Counter(ends)  # rows of which there is no other with these ends need no digest
    names = [_digest(row) if alike[end] > 1 else end for row, end in zip(bits, ends, strict=True)]
    place = {name: i for i, name in enumerate(dict.fromkeys(names))}
    if len(place) == len(rows):
        return tensor, None
    index = np.array([place[name] for name in names], np.int32)
    first = np.unique(index, return_index=True)[1]
    return rows[first], index.reshape(tensor.shape[:-1])


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(row.data, digest_size=16).digest()
