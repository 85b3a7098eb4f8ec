import pytest

from fedpl.scores import Scores, score, summarise


def test_accuracy_and_macro_f1_by_hand() -> None:
    # Class 0: precision 1, recall 1/2, F1 2/3. Class 1: precision 2/3, recall 1, F1 4/5.
    scores = score([0, 0, 1, 1], [0, 1, 1, 1])
    assert scores.accuracy == 0.75
    assert scores.macro_f1 == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_a_constant_answer_has_a_low_macro_f1() -> None:
    assert score([0, 0, 0, 1], [0, 0, 0, 0]) == Scores(0.75, pytest.approx(3 / 7))


def test_statistics_over_clients() -> None:
    accuracies = [0.5, 0.6, 0.7, 0.8]
    summary = summarise({str(a): Scores(a, 1 - a) for a in accuracies})
    assert summary.mean == pytest.approx((0.65, 0.35))
    assert summary.std == pytest.approx((0.0125**0.5,) * 2)
    assert summary.worst == pytest.approx((0.5, 0.2))
    assert summary.bottom_decile == pytest.approx((0.53, 0.23))
