"""What answers are worth."""

from collections.abc import Sequence

from fedpl.deferred import deferred
from fedpl.records.scores import Metric, Scores

measures = deferred("sklearn.metrics")

CLASSIFICATION = (Metric("accuracy", "%"), Metric("macro_f1", "%"))


def classification_scores(labels: Sequence[int], answers: Sequence[int]) -> Scores:
    """Share of right answers, and F1 averaged over the classes that occur among labels or answers."""
    f1 = measures.f1_score(labels, answers, average="macro", zero_division=0.0)
    return {"accuracy": float(measures.accuracy_score(labels, answers)), "macro_f1": float(f1)}
