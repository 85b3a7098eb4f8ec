import math

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
