import json
import math

import numpy as np
import pytest

from fedpl.tracking.records import diagnostics, finite, mean_over_blocks


def test_diagnostics_by_hand() -> None:
    similarity = np.array([[1.0, 0.5], [-0.5, 1.0]])
    weights = np.array([[0.75, 0.25], [-0.5, 1.5]])
    found = diagnostics(similarity, weights)
    assert found["row_sum"] == [1.5, 0.5]
    assert found["absolute_weight"] == [1.0, 2.0]
    assert found["self_weight"] == [0.75, 1.5]
    assert found["effective_neighbours"] == pytest.approx([1 / 0.625, 1 / 2.5])


def test_uniform_weights_have_as_many_neighbours_as_clients() -> None:
    weights = np.full((5, 5), 0.2)
    assert diagnostics(weights, weights)["effective_neighbours"] == pytest.approx([5.0] * 5)


def test_blocks_are_averaged() -> None:
    blocks = np.stack([np.eye(2), np.ones((2, 2))])
    assert mean_over_blocks(blocks).tolist() == [[1.0, 0.5], [0.5, 1.0]]


def test_what_json_lacks_becomes_null() -> None:
    value = {"a": [1.0, math.nan], "b": {"c": -math.inf}, "d": (1, "x"), "e": True}
    assert finite(value) == {"a": [1.0, None], "b": {"c": None}, "d": [1, "x"], "e": True}
    json.dumps(finite(value), allow_nan=False)
