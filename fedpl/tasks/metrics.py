"""What answers are worth."""

from collections.abc import Sequence

from fedpl.records.scores import Metric, Scores

CLASSIFICATION = (Metric("accuracy", "%"), Metric("macro_f1", "%"))


def classification_scores(labels: Sequence[int], answers: Sequence[int]) -> Scores:
    """Share of right answers, and F1 averaged over the classes that occur among labels or answers."""
    from sklearn.metrics import accuracy_score, f1_score

    f1 = f1_score(labels, answers, average="macro", zero_division=0.0)
    return {"accuracy": float(accuracy_score(labels, answers)), "macro_f1": float(f1)}
