import math

import numpy as np
import pytest

from fedpl.records.scores import Metric, summarise
from fedpl.tasks.metrics import CLASSIFICATION, classification_scores
from tests.made_up import REGRESSION


def test_accuracy_and_macro_f1_by_hand() -> None:
    # Class 0: precision 1, recall 1/2, F1 2/3. Class 1: precision 2/3, recall 1, F1 4/5.
    scores = classification_scores([0, 0, 1, 1], [0, 1, 1, 1])
    assert scores == {"accuracy": 0.75, "macro_f1": pytest.approx((2 / 3 + 4 / 5) / 2)}


def test_a_constant_answer_has_a_low_macro_f1() -> None:
    scores = classification_scores([0, 0, 0, 1], [0, 0, 0, 0])
    assert scores == {"accuracy": 0.75, "macro_f1": pytest.approx(3 / 7)}


@pytest.mark.parametrize("classes", [1, 2, 7, 150])
@pytest.mark.parametrize("size", [1, 2, 30, 500])
def test_scores_are_scikit_learns_to_the_bit(classes: int, size: int) -> None:
    from sklearn import metrics

    stream = np.random.default_rng(classes * 1000 + size)
    for _ in range(5):
        labels, answers = stream.integers(0, classes, (2, size)).tolist()
        assert classification_scores(labels, answers) == {
            "accuracy": metrics.accuracy_score(labels, answers),
            "macro_f1": metrics.f1_score(labels, answers, average="macro", zero_division=0.0),
        }


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="0 labels and 0 answers"):
        classification_scores([], [])
    with pytest.raises(ValueError, match="2 labels and 1 answers"):
        classification_scores([0, 1], [0])


def test_statistics_over_clients() -> None:
    summary = summarise(
        {str(a): {"accuracy": a, "macro_f1": 1 - a} for a in (0.5, 0.6, 0.7, 0.8)}, CLASSIFICATION
    )
    assert summary.mean == pytest.approx({"accuracy": 0.65, "macro_f1": 0.35})
    assert summary.std == pytest.approx(dict.fromkeys(("accuracy", "macro_f1"), 0.0125**0.5))
    assert summary.worst == pytest.approx({"accuracy": 0.5, "macro_f1": 0.2})
    assert summary.bottom_decile == pytest.approx({"accuracy": 0.53, "macro_f1": 0.23})


def test_the_worst_is_where_the_metric_says() -> None:
    summary = summarise({str(a): {"rmse": a, "pearson": a} for a in (0.5, 0.6, 0.7, 0.8)}, REGRESSION)
    assert summary.worst == {"rmse": 0.8, "pearson": 0.5}
    assert summary.bottom_decile == pytest.approx({"rmse": 0.77, "pearson": 0.53})


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        (Metric("accuracy", "%"), 0.8125, "81.2"),
        (Metric("accuracy", "%"), -0.0001, "0.0"),
        (Metric("rmse"), 0.8125, "0.812"),
        (Metric("rmse"), math.nan, "–"),
        (Metric("rmse"), None, "–"),
    ],
)
def test_values_for_people(metric: Metric, value: float | None, shown: str) -> None:
    assert metric.shown(value) == shown


def test_names_for_people() -> None:
    assert [metric.title for metric in (*CLASSIFICATION, Metric("median_error", "m"))] == [
        "accuracy, %",
        "macro-F1, %",
        "median error, m",
    ]
