"""Similarity and weights by round, as bytes that the page draws: 500 clients and 100 rounds fit into it."""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from fedpl.data.wording import readable
from fedpl.page.found import Found
from fedpl.pictures.plots import block_means
from fedpl.records.plain import Matrix
from fedpl.tracking.matrices import Name

POINTS = 96  # of a matrix a side; of more clients a point is a mean over neighbours
ROUNDS = 40  # most rounds that are kept
BYTES = 1_000_000  # of all matrices of a page, as text
_NONE = 255  # a byte that stands for no number
_NAMES: tuple[Name, ...] = ("similarity", "weights")


def spread(number: int, most: int) -> list[int]:
    """Some of the numbers from 1 on, evenly spaced, with the last, and the first if there may be two."""
    return sorted({round(x) for x in np.linspace(number, 1, min(number, most))}) if number else []


def film(run: Found, order: Sequence[int], budget: int = BYTES) -> dict[str, Any] | None:
    """What the page's script draws; None where no matrix is kept.

    Args:
        run: The run.
        order: The clients' order, similar ones neighbours.
        budget: Characters of all matrices together; fewer rounds are kept where it is small.
    """
    n = len(run.clients)
    side = -(-n // (-(-n // POINTS))) if n else 0
    most = max(1, min(ROUNDS, budget // max(1, 2 * side * side * 4 // 3)))
    found: dict[str, Any] = {
        "rounds": [],
        "clients": [readable(run.clients[i]) for i in order],
        "together": -(-n // POINTS),
    }
    kept: dict[Name, list[Matrix]] = {name: [] for name in _NAMES}
    for round in spread(run.summary.rounds if run.summary else len(run.records), most):
        pair = [run.matrix(round, name) for name in _NAMES]
        if any(matrix is None for matrix in pair):
            continue
        found["rounds"].append(round)
        for name, matrix in zip(_NAMES, pair, strict=True):
            kept[name].append(_points(matrix, order))  # type: ignore[arg-type]
    if not found["rounds"]:
        return None
    found |= {name: _quantised(matrices) for name, matrices in kept.items()}
    return found


def _points(matrix: Matrix, order: Sequence[int]) -> Float[np.ndarray, "points points"]:
    """The matrix in the clients' order, without its diagonal, which is often ten times the rest."""
    n = len(matrix)
    shown = np.ma.masked_array(np.asarray(matrix, np.float64)[np.ix_(order, order)], np.eye(n, dtype=bool))
    return block_means(shown, -(-n // POINTS)).filled(np.nan)


def _quantised(matrices: Sequence[Float[np.ndarray, "points points"]]) -> dict[str, Any]:
    """Bytes on one scale for all rounds, from `low` (0 or, beside negative numbers, −high) to `high`."""
    every = np.concatenate([matrix.ravel() for matrix in matrices])
    every = every[np.isfinite(every)]
    high = float(np.abs(every).max(initial=0)) or 1.0
    low = -high if every.min(initial=0) < 0 else 0.0
    found = []
    for matrix in matrices:
        steps = np.rint((matrix - low) / (high - low) * (_NONE - 1))
        plain = np.where(np.isfinite(matrix), steps, _NONE).astype(np.uint8)
        found.append(base64.b64encode(plain.tobytes()).decode())
    return {"low": low, "high": high, "points": len(matrices[0]), "values": found}
