from pathlib import Path

import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.tracking.plots import cluster_order, draw_run, heat_map


def test_similar_clients_become_neighbours() -> None:
    groups = np.array([0, 1, 0, 1, 0, 1])
    similarity = np.where(groups[:, None] == groups, 0.4, -0.1)
    np.fill_diagonal(similarity, 1)
    ordered = groups[cluster_order(similarity)]
    assert (np.diff(ordered) != 0).sum() == 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_clients_keep_their_order(n: int) -> None:
    assert sorted(cluster_order(np.eye(n))) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 12, 60])
def test_heat_maps_of_any_size(n: int, tmp_path: Path) -> None:
    matrix = np.random.default_rng(n).uniform(-1, 1, (n, n))
    names = [f"client {i}" for i in range(n)]
    figure = heat_map(matrix, names, list(range(n)), "title")
    figure.savefig(tmp_path / "map.png")
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (ticks == names) == (n <= 48)


def test_the_colours_span_the_entries_beside_the_diagonal() -> None:
    matrix = np.array([[1.0, 0.2], [-0.1, 1.0]])
    image = heat_map(matrix, ["a", "b"], [0, 1], "").axes[0].images[0]
    assert image.get_clim() == (-0.2, 0.2)
    assert image.get_array().mask.tolist() == [[True, False], [False, True]]
    positive = heat_map(np.abs(matrix), ["a", "b"], [0, 1], "").axes[0].images[0]
    assert positive.get_clim() == (0.0, 0.2)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no finished run"):
        draw_run(tmp_path)
