"""How much of task vectors is signal, from what clients report of the halves of their examples."""

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_ndtr

from fedpl.server.blocks import blocks

_LEAST = 0.005  # of a task vector's energy: there is some signal
_FEWEST = 0.7  # of what is reported, at least, if members of groups agree in less
_APART = 0.1  # of the agreement inside groups: up to so much between them is none
_NOISE = np.geomspace(1e-2, 1e6, 161)  # of one example, in units of the signal's energy


def shares(
    halves: Float[np.ndarray, "n"], examples: Int[np.ndarray, "n"], error: float, factor: float = 1.0
) -> Float[np.ndarray, "n"]:
    """ρ, the share of signal in each client's task vector.

    Of a client of m examples, each of which brings κ times the signal's energy in noise, halves agree by
    m / (m + 2κ). One κ is fitted to what all report, and each report is drawn towards it as far as its error
    explains how reports differ from it (James and Stein, 1961; Fay and Herriot, JASA 1979): a few examples
    tell little of themselves. What the error leaves open cannot lie below zero (the mean of a truncated
    normal). Who has too few for two halves is taken at its number of examples.

    Args:
        halves: Mean cosine of the halves' task vectors; NaN: not told.
        examples: Training examples.
        error: Variance of a report's error.
        factor: What reports have to be multiplied by, see `correction`.
    """
    told = np.isfinite(halves)
    seen = np.clip(np.where(told, halves, 0.0), -1.0, 1.0)
    expected = _expected(seen, told, examples)
    off = float(np.square(seen - expected)[told].mean()) if told.any() else 0.0
    true = max(off - error, 0.0)
    kept = true / (true + error) if true > 0 else 0.0
    half = factor * (expected + np.where(told, kept * (seen - expected), 0.0))
    if (left := np.sqrt(error * kept)) > 0:
        at = half / left
        above = left * np.exp(-np.square(at) / 2 - log_ndtr(at)) / np.sqrt(2 * np.pi)
        half = half + np.where(told, above, 0.0)
    half = np.clip(half, 0.0, 1.0)
    return np.maximum(2 * half / (1 + half), _LEAST)


def correction(
    cosine: Float[np.ndarray, "n n"], signal: Float[np.ndarray, "n"], groups: Int[np.ndarray, "n"]
) -> float:
    """What reports have to be multiplied by so that members of groups agree in 1.

    Near-duplicates that one half has alone make halves agree by less than two clients do, few examples by
    more. No two directions agree by more than 1, so reports are taken for too small where groups do. Where
    members agree by less, they may have their tasks in part only, and reports count; unless there are
    several groups that share nothing: then tasks are one or another, and reports were too large.

    Args:
        cosine: Of task vectors.
        signal: ρᵢ by reports as they are.
        groups: Those that the cosines alone show.
    """
    _, mean, entries, inside, _ = blocks(cosine, groups, np.sqrt(np.outer(signal, signal)))
    between = ~np.eye(len(mean), dtype=bool)
    if not inside.any():
        return 1.0
    within = float((mean * entries)[inside].sum() / entries[inside].sum())
    apart = between.any() and (mean * entries)[between].sum() <= _APART * within * entries[between].sum()
    return max(within, _FEWEST if apart else 1.0)


def _expected(
    seen: Float[np.ndarray, "n"], told: np.ndarray, examples: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """m / (m + 2κ), κ by least squares."""
    each = examples / (examples + 2 * _NOISE[:, None])
    left = np.square(each[:, told] - seen[told]).sum(1)
    return each[int(np.argmin(left))] if told.any() else np.zeros(len(seen))
