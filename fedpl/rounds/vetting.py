"""Whose task vector of a round can be used. What cannot is put aside, with the reason."""

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.records.messages import Report


def vet(reports: Sequence[Report], max_norm: float | None) -> dict[str, str]:
    """Why answers cannot be used, by client; clients that are not named can.

    Args:
        reports: What was reported, at most once by each client that was asked.
        max_norm: Longest usable vector, as a multiple of the median length; None: any.
    """
    found: dict[str, str] = {}
    for report in reports:
        if report.examples < 1:
            found[report.client] = f"claims {report.examples} training examples"
        elif report.late:
            found[report.client] = "answered late"
    usable = [report for report in reports if report.client not in found]
    return found | _bad_lengths({report.client: _length(report.vector) for report in usable}, max_norm)


def _bad_lengths(lengths: Mapping[str, float], max_norm: float | None) -> dict[str, str]:
    found = {c: "its task vector is not finite" for c, size in lengths.items() if not math.isfinite(size)}
    finite = {client: size for client, size in lengths.items() if client not in found}
    if max_norm is None or not finite:
        return found
    # The lower median of those who moved stands while at most half of them send absurd vectors; the mean of
    # two, which is the median of two, would grow with whatever one of them sends.
    moved = [size for size in finite.values() if size > 0]
    if not moved:
        return found
    limit = max_norm * statistics.median_low(moved)
    return found | {
        client: f"its task vector has length {size:.3g}, the limit is {limit:.3g}"
        for client, size in finite.items()
        if size > limit
    }


def _length(vector: Float[Tensor, "params"]) -> float:
    """Euclidean length; no float32 overflows in it, so that it is finite exactly when the vector is."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
