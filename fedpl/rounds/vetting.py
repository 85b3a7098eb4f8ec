"""Whose task vector of a round can be used; what cannot is put aside, with the reason. Copies are named."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from fedpl.interop import library, on_host
from fedpl.records.messages import Report

_COPY = 1e-6
TOGETHER = 2**26  # bytes of task vectors that are compared at once
_Sent: TypeAlias = tuple[float, str, Any]  # length, client, task vector


def vet(
    reports: Sequence[Report], max_norm: float | None, settle: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Why answers cannot be used, by client; clients that are not named can.

    Args:
        reports: What was reported, at most once by each client that was asked.
        max_norm: Longest usable vector, as a multiple of the median length; None: any.
        settle: Called after each vector: one that lies on disk need not stay in memory.
    """
    found: dict[str, str] = {}
    for report in reports:
        if report.examples < 1:
            found[report.client] = f"claims {report.examples} training examples"
        elif report.late:
            found[report.client] = "answered late"
    usable = [report for report in reports if report.client not in found]
    lengths = dict(zip([report.client for report in usable], _lengths(usable, settle), strict=True))
    return found | _bad_lengths(lengths, max_norm)


def alike(
    reports: Sequence[Report], settle: Callable[[], None] = lambda: None, size: int = TOGETHER
) -> dict[str, str]:
    """Clients that sent one and the same task vector, each with another one that did.

    Training by itself does not get there: of equal length and cosine above 1 − 1e-6 are copies, be it of data
    that came twice or of a vector that was overheard.

    Args:
        reports: Whose task vectors are used.
        settle: As of `vet`.
        size: Bytes of vectors that are compared at once.
    """
    found: dict[str, str] = {}
    by_length = sorted(
        (length, report.client, report.vector)
        for length, report in zip(_lengths(reports, settle), reports, strict=True)
    )
    for company in _of_one_length(by_length):
        vectors = [vector for _, _, vector in company]
        longest = company[-1][0]
        # Products are good to about 1e-6 of longest²: they name the candidates, differences decide.
        of = library(vectors[0])
        near = of.argwhere(of.triu(_products(vectors, settle, size), 1) > (1 - 1e-4) * longest**2)
        many = max(size // max(vectors[0].nbytes, 1), 1)
        for pairs in (near[start : start + many] for start in range(0, len(near), many)):
            one, two = (of.stack([vectors[place] for place in side]) for side in pairs.T.tolist())
            copies = pairs[_norms(one - two) <= math.sqrt(2 * _COPY) * longest].tolist()
            for a, b in ((company[i][1], company[j][1]) for i, j in copies):
                found.setdefault(a, f"sent the same task vector as '{b}'")
                found.setdefault(b, f"sent the same task vector as '{a}'")
            for _ in range(len(pairs)):
                settle()
    return found


def _products(
    vectors: Sequence[Float[Any, "params"]], settle: Callable[[], None], size: int
) -> Float[Any, "vectors vectors"]:
    """Inner products of all pairs, some columns of all vectors at a time."""
    first, n = vectors[0], len(vectors)
    of, like = library(first), {"dtype": first.dtype, "device": first.device}
    width = max(size // (first.itemsize * n), 1)
    products = of.zeros((n, n), **like)
    for start in range(0, len(first), width):
        part = of.empty((n, min(width, len(first) - start)), **like)
        for row, vector in zip(part, vectors, strict=True):
            row[:] = vector[start : start + width]
            settle()
        products += part @ part.T
    return products


def _of_one_length(by_length: Sequence[_Sent]) -> Iterator[Sequence[_Sent]]:
    """Runs of two and more, in order of their lengths, that have one length; none of length zero."""
    begin = 0
    for i in range(1, len(by_length) + 1):
        if i == len(by_length) or by_length[i][0] > by_length[i - 1][0] * (1 + _COPY):
            if i - begin > 1 and by_length[begin][0] > 0:
                yield by_length[begin:i]
            begin = i


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


def _lengths(reports: Sequence[Report], settle: Callable[[], None]) -> list[float]:
    """Euclidean lengths of the task vectors; a device is waited for once, not for each.

    No float32 overflows in them, so that one is finite exactly when its vector is.
    """
    if not reports:
        return []
    lengths = []
    for report in reports:
        lengths.append(_norms(report.vector))
        settle()
    found: list[float] = library(reports[0].vector).stack(lengths).tolist()
    return found


def _norms(rows: Float[Any, "*some params"]) -> Float[Any, "*some"]:
    """Euclidean lengths of rows, in float64.

    On the host by NumPy, some numbers at a time: torch makes the rows anew in float64, and among thousands of
    them its memory is not found again.
    """
    of = library(rows)
    if of is np or rows.device.type == "cpu":
        own = on_host(rows)
        return of.asarray(np.sqrt(np.einsum("...i,...i->...", own, own, dtype=np.float64)))
    return of.linalg.vector_norm(rows, dim=-1, dtype=of.float64)
