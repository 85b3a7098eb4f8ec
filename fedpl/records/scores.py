"""Scores of clients, and what is said about all clients at once."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np


class Metric(NamedTuple):
    """What a number in a score means.

    Attributes:
        name: Its key.
        unit: ``%`` for a fraction that people read in per cent, else the unit, or nothing.
        higher: Whether more is better.
    """

    name: str
    unit: str = ""
    higher: bool = True

    @property
    def factor(self) -> float:
        """By what a value is multiplied for people."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def sign(self) -> int:
        """+1 where more is better, else −1: a difference times it is a gain."""
        return 1 if self.higher else -1

    @property
    def label(self) -> str:
        """Its name for people."""
        return self.name.replace("_", " ").replace("macro f1", "macro-F1")

    @property
    def title(self) -> str:
        """Its name for people, with the unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def shown(self, value: float | None, sign: str = "") -> str:
        """A value for people; a dash for none.

        Args:
            value: As in a score.
            sign: "+" shows it always.
        """
        if value is None or math.isnan(value):
            return "–"
        digits = 1 if self.unit == "%" else 3
        return f"{round(self.factor * value, digits) + 0.0:{sign}.{digits}f}"  # + 0.0: no minus before a zero


# Quality of one model on one split, by metric: the metrics that the task declares, in their order.
Scores: TypeAlias = Mapping[str, float]


def best(scores: Sequence[Scores], metric: Metric) -> Scores:
    """The scores that are best by a metric; of equal ones the first."""
    return max(scores, key=lambda own: metric.sign * own[metric.name])


MARGIN = 0.02  # of the primary metric, in its own numbers: a smaller loss harms nobody, unless told otherwise


def is_harmed(own: float, alone: float, metric: Metric, margin: float) -> bool:
    """Whether a score is worse than local-only training's by more than a margin; NaN harms nobody.

    Args:
        own: The score.
        alone: The same client's after training alone.
        metric: Which.
        margin: In the metric's own numbers: of accuracy as a fraction.
    """
    # Means of the same fractions may differ in the last bit.
    return metric.sign * own < metric.sign * alone - margin - 1e-9


class Summary(NamedTuple):
    """Statistics over clients, each metric by itself.

    Attributes:
        mean: Mean.
        std: Standard deviation over the clients (population).
        worst: The worst client's, by the metric's direction.
        bottom_decile: The tenth percentile from the worst, interpolated.
    """

    mean: Scores
    std: Scores
    worst: Scores
    bottom_decile: Scores


def summarise(scores: Mapping[str, Scores], metrics: Sequence[Metric]) -> Summary:
    """Statistics of each metric over all clients that have been scored; NaN where none has.

    Args:
        scores: By client.
        metrics: What a score consists of.
    """
    if not scores:
        return Summary(*({metric.name: math.nan for metric in metrics} for _ in Summary._fields))
    table = np.array([[own[m.name] for m in metrics] for own in scores.values()], dtype=np.float64)
    higher = np.array([metric.higher for metric in metrics])
    worst = np.where(higher, table.min(0), table.max(0))
    decile = np.where(higher, np.quantile(table, 0.1, axis=0), np.quantile(table, 0.9, axis=0))
    rows = (table.mean(0), table.std(0), worst, decile)
    return Summary(*({m.name: float(v) for m, v in zip(metrics, row, strict=True)} for row in rows))
