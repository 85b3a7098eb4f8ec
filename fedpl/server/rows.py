"""Matrices with equal rows as they lie on disk: every row once, and which one stands where.

An average is one row for all clients, a cluster's model one for its members.
"""

from collections.abc import Mapping

import numpy as np

from fedpl.mapped import Settling
from fedpl.server.models import first_equal

_INDEX = "rows."
_TOGETHER = 2**22  # bytes of rows that are copied between files before their memory is given back


def once(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same tensors; of one with equal rows only the distinct ones, with an index beside it.

    What lies in a file stays as it is: its distinct rows may be more than memory holds.

    Args:
        tensors: By name; no name begins with ``rows.``.
    """
    found: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        plain = tensor.ndim > 1 and tensor.size and not isinstance(tensor, np.memmap)
        distinct, index = _distinct(tensor) if plain else (tensor, None)
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
        settle = Settling((rows, target), 2 * target[0].nbytes, _TOGETHER)
        for place, row in enumerate(index):
            target[place] = rows[row]
            settle()
        found[name] = target
    return found


def _outside(index: np.ndarray, rows: int) -> bool:
    return bool(index.size) and not 0 <= index.min() <= index.max() < rows


def _distinct(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The distinct rows along the last axis, and which one stands where; None: all are."""
    rows = np.ascontiguousarray(tensor).reshape(-1, tensor.shape[-1])
    first = first_equal(rows)
    kept = np.unique(first)
    if len(kept) == len(rows):
        return tensor, None
    index = np.searchsorted(kept, first).astype(np.int32)
    return rows[kept], index.reshape(tensor.shape[:-1])
