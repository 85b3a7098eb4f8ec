"""Scores of clients, and what is said about all clients at once."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """Quality of one model on one split, as fractions.

    Attributes:
        accuracy: Share of right answers.
        macro_f1: F1 averaged over the classes that occur among labels or answers.
    """

    accuracy: float
    macro_f1: float


def score(labels: Sequence[int], answers: Sequence[int]) -> Scores:
    """Compare answers with labels."""
    from sklearn.metrics import accuracy_score, f1_score

    f1 = f1_score(labels, answers, average="macro", zero_division=0.0)
    return Scores(float(accuracy_score(labels, answers)), float(f1))


class Summary(NamedTuple):
    """Statistics over clients, as fractions.

    Attributes:
        mean: Mean.
        std: Standard deviation over the clients (population).
        worst: Smallest.
        bottom_decile: Tenth percentile, interpolated.
    """

    mean: Scores
    std: Scores
    worst: Scores
    bottom_decile: Scores


def summarise(scores: Mapping[str, Scores]) -> Summary:
    """Statistics of each score over all clients, each score by itself."""
    table = np.array(list(scores.values()), dtype=np.float64)
    rows = (table.mean(0), table.std(0), table.min(0), np.quantile(table, 0.1, axis=0))
    return Summary(*(Scores(*map(float, row)) for row in rows))
