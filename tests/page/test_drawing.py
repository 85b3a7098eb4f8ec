"""What a page draws from: matrices as bytes, the map, groups and edges."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest

from fedpl.page.film import film, spread
from fedpl.page.found import Found
from fedpl.page.neighbours import Neighbours, classical_scaling, neighbours
from fedpl.page.network import scatter
from tests.page.made import made_run, values


def test_matrices_come_back_from_their_bytes(tmp_path: Path) -> None:
    run = Found.read(made_run(tmp_path / "run", values(5), rounds=3))
    order = [4, 2, 0, 3, 1]
    data = film(run, order)
    assert data is not None
    assert data["rounds"] == [1, 2, 3]
    found = data["weights"]
    coded = np.frombuffer(base64.b64decode(found["values"][1]), np.uint8).reshape(5, 5)
    assert (np.diagonal(coded) == 255).all()
    back = found["low"] + coded / 254 * (found["high"] - found["low"])
    expected = run.matrix(2, "weights")
    assert expected is not None
    beside = ~np.eye(5, dtype=bool)
    step = (found["high"] - found["low"]) / 254
    assert np.abs(back - expected[np.ix_(order, order)])[beside].max() <= step / 2 + 1e-9


def test_rounds_are_spread_with_the_first_and_the_last() -> None:
    assert (spread(0, 4), spread(3, 4), spread(100, 4), spread(9, 1)) == (
        [],
        [1, 2, 3],
        [1, 34, 67, 100],
        [9],
    )


def test_the_map_keeps_distances_that_fit_into_two_dimensions() -> None:
    points = np.random.default_rng(0).normal(size=(7, 2))
    distance = np.linalg.norm(points[:, None] - points, axis=-1)
    places = classical_scaling(distance)
    found = np.linalg.norm(places[:, None] - places, axis=-1)
    np.testing.assert_allclose(found / found.max(), distance / distance.max(), atol=1e-9)
    assert np.abs(places).max() == pytest.approx(1)


def test_groups_and_edges_follow_the_matrices() -> None:
    group = np.array([1, 0, 1, 0, 0])
    similarity = np.where(group[:, None] == group, 0.5, 0.0)
    np.fill_diagonal(similarity, 1)
    weights = np.zeros((5, 5))
    weights[3, 1], weights[0, 2], weights[4, 4] = 0.4, -0.3, 9.0
    found = neighbours(similarity, weights)
    assert found.groups == (1, 0, 1, 0, 0)
    assert found.edges == ((1, 3, 0.4), (2, 0, -0.3))  # from whom, to whom
    assert neighbours(np.ones((3, 3)), np.eye(3)).groups == (0, 0, 0)


def test_names_of_near_clients_do_not_lie_on_each_other() -> None:
    clients = [f"client-{i}" for i in range(12)]
    places = np.random.default_rng(0).normal(0, 0.03, (12, 2))
    drawn = scatter(clients, Neighbours(places, (0,) * 12, (), 0.0), ())
    found = re.findall(r'<text class="name" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">', drawn)
    assert len(found) == 12
    boxes = [(float(x) - 50 * (anchor == "end"), float(y)) for x, y, anchor in found]
    for i, (x, y) in enumerate(boxes):
        for other_x, other_y in boxes[:i]:
            assert abs(y - other_y) > 12 or abs(x - other_x) > 50, found
