"""How much of task vectors is signal, from what clients report of the halves of their examples."""

import numpy as np
from jaxtyping import Float, Int

_LEAST = 0.05  # share of signal below which a report is not told from none
_NOISE = np.geomspace(1e-2, 1e6, 161)  # of one example, in units of the signal's energy


def shares(
    halves: Float[np.ndarray, "n"], examples: Int[np.ndarray, "n"], error: float
) -> Float[np.ndarray, "n"]:
    """ρ, the share of signal in each client's task vector.

    Of a client of m examples, each of which brings κ times the signal's energy in noise, halves agree by
    m / (m + 2κ). One κ is fitted to what all report, and each report is drawn towards it as far as its error
    explains how reports differ from it (James and Stein, 1961; Fay and Herriot, JASA 1979): a few examples
    tell little of themselves. Who has too few for two halves is taken at its number of examples.

    Args:
        halves: Mean cosine of the halves' task vectors; NaN: not told.
        examples: Training examples.
        error: Variance of a report's error.
    """
    told = np.isfinite(halves)
    seen = np.clip(np.where(told, halves, 0.0), -1.0, 1.0)
    expected = _expected(seen, told, examples)
    off = float(np.square(seen - expected)[told].mean()) if told.any() else 0.0
    true = max(off - error, 0.0)
    kept = true / (true + error) if true > 0 else 0.0
    half = np.clip(expected + np.where(told, kept * (seen - expected), 0.0), 0.0, 1.0)
    return np.maximum(2 * half / (1 + half), _LEAST)


def _expected(
    seen: Float[np.ndarray, "n"], told: np.ndarray, examples: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "n"]:
    """m / (m + 2κ), κ by least squares."""
    each = examples / (examples + 2 * _NOISE[:, None])
    left = np.square(each[:, told] - seen[told]).sum(1)
    return each[int(np.argmin(left))] if told.any() else np.zeros(len(seen))
