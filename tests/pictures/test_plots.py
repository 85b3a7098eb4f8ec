from pathlib import Path

import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.pictures.clients import client_scores
from fedpl.pictures.comparison_plot import method_dots
from fedpl.pictures.plots import cluster_order, draw_run, heat_map, learning_curves
from tests.made_up import REGRESSION, record, result, summary


def test_similar_clients_become_neighbours() -> None:
    groups = np.array([0, 1, 0, 1, 0, 1])
    similarity = np.where(groups[:, None] == groups, 0.4, -0.1)
    np.fill_diagonal(similarity, 1)
    ordered = groups[cluster_order(similarity)]
    assert (np.diff(ordered) != 0).sum() == 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_clients_keep_their_order(n: int) -> None:
    assert sorted(cluster_order(np.eye(n))) == list(range(n))


def test_many_clients_are_ordered_too() -> None:
    groups = np.random.default_rng(0).permutation(np.arange(300) % 3)
    similarity = np.where(groups[:, None] == groups, 0.4, -0.1)
    assert (np.diff(groups[cluster_order(similarity)]) != 0).sum() == 2


def test_a_point_of_a_heat_map_of_many_is_a_mean_over_neighbours() -> None:
    matrix = np.arange(25.0).reshape(5, 5)
    matrix[0, 1] = np.nan
    axes = heat_map(matrix, list("abcde"), [4, 3, 2, 1, 0], "title", points=3).axes[0]
    shown = axes.images[0].get_array()
    # Without the diagonal, and without what is not finite.
    assert shown.filled(-1).tolist() == [[21, 19, 17.5], [11, 9, 7.5], [3.5, 2, -1]]
    assert axes.get_title() == "title (a point: mean of 2 × 2)"


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


def test_pictures_of_a_run_with_more_clients_than_json_holds_matrices_of(tmp_path: Path) -> None:
    found = summary({str(i): 0.5 for i in range(65)})
    found.write(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    names = {path.name for path in draw_run(tmp_path)}
    assert names == {"similarity.png", "weights.png", "clients.png"}


def test_many_clients_have_curves_instead_of_bars() -> None:
    values = {str(i): (i * 7 % 65) / 100 for i in range(65)}
    axes = client_scores(summary(values, tuned=["3"])).axes[0]
    assert not axes.containers
    curves = {line.get_label(): line.get_ydata().tolist() for line in axes.lines}
    assert curves["m, aggregated"] == pytest.approx(list(range(65)))
    assert curves["m, tuned"] == pytest.approx([21.0])
    assert len(curves["majority class"]) == 65
    found = client_scores(summary(values, baselines={"local": result(dict.fromkeys(values, 0.32))}))
    assert found.axes[1].get_ylabel() == "clients (32 of 65 lose)"


def test_more_than_twenty_clients_are_dots_in_the_order_of_their_scores() -> None:
    values = {f"c{i}": (i * 5 % 21) / 100 for i in range(21)}
    axes = client_scores(summary(values)).axes[0]
    assert not axes.containers
    assert axes.lines[0].get_xdata().tolist() == pytest.approx(list(range(21)))
    assert axes.get_yticklabels()[-1].get_text() == "c4", "the best on top"
    errors = client_scores(summary(values, REGRESSION)).axes[0]
    assert errors.get_yticklabels()[-1].get_text() == "c0", "of an error, least is best"


def test_a_heat_map_says_what_is_left_out_of_its_colours() -> None:
    matrix = np.array([[1.0, 0.2], [0.2, 1.0]])
    axes = heat_map(matrix, ["a", "b"], [0, 1], "Similarity: m, round 3").axes[0]
    assert axes.get_xlabel() == "grey: a client with itself (1.00), left out of the colours"


def test_pictures_follow_the_primary_metric() -> None:
    """Its unit, its name; the worst client of an error is the one with most of it."""
    values = {"a": 0.5, "b": 1.5}
    baselines = {"local": result({"a": 2.0, "b": 3.0}, REGRESSION)}
    axes = client_scores(summary(values, REGRESSION, baselines, tuned=["b"])).axes[0]
    assert axes.get_ylabel() == "test rmse"
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights[:2] == [[2.0, 3.0], [0.5, 1.5]]
    assert np.isnan(heights[2][0])
    assert 3 < axes.get_ylim()[1] < 10
    accuracy = client_scores(summary({"a": 0.5})).axes[0]
    assert (accuracy.get_ylabel(), accuracy.get_ylim()) == ("test accuracy, %", (0.0, 100.0))
    assert accuracy.containers[0][0].get_height() == 50.0
    curves = learning_curves([(1, record(values, REGRESSION).validation)], "m", REGRESSION[0]).axes[0]
    assert curves.get_ylabel() == "validation rmse"
    assert [line.get_ydata()[0] for line in curves.lines[:2]] == [1.0, 1.5]


def test_the_dots_of_a_comparison_follow_the_primary_metric(tmp_path: Path) -> None:
    from fedpl.compare.statistics import compare

    summary({"a": 0.5, "b": 1.5}, REGRESSION).write(tmp_path)
    axes = method_dots(compare({"local": {0: tmp_path}}, 0.02)).axes[0]
    assert axes.get_xlabel() == "test rmse, mean over clients"
    assert axes.lines[-1].get_xdata()[0] == 1.0
