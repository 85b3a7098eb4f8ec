"""Pictures of a run, drawn from its summary.json and metrics.jsonl alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from fedpl.data.wording import readable
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.pictures.clients import client_scores
from fedpl.pictures.style import COLOURS, plain_legend
from fedpl.records.results import RunSummary
from fedpl.records.rounds import SplitScores, each_round
from fedpl.records.scores import Metric

hierarchy, spatial = map(deferred, ("scipy.cluster.hierarchy", "scipy.spatial.distance"))

_NAMED = 48  # beyond so many clients their names would overlap
_LONGEST = 24  # characters of a name
_OPTIMAL = 256  # up to so many clients, leaves are also turned so that neighbours are nearest: O(n⁴) at worst
_POINTS = 500  # of a heat map a side; it has about 900 pixels for them


def draw_run(folder: Path) -> list[Path]:
    """Draw every picture of a run directory into its ``plots/``.

    Raises:
        UserError: If the folder holds no finished run.
    """
    try:
        summary = RunSummary.read(folder)
        # Without the clients' own scores, which take most of a record's memory.
        scored = [
            (record.round, replace(record.validation, clients={}))
            for record in each_round(folder / "metrics.jsonl")
            if record.validation is not None
        ]
    except UserError as error:
        raise UserError(
            f"{folder} holds no finished run (summary.json and metrics.jsonl): {error}"
        ) from error
    names = list(summary.compared)
    similarity = np.array(summary.similarity, dtype=float)
    weights = np.array(summary.weights, dtype=float)
    order = cluster_order(similarity)
    of = f"{summary.method}, round {summary.rounds}"
    figures = {
        "similarity.png": heat_map(similarity, names, order, f"Similarity of task vectors: {of}"),
        "weights.png": heat_map(weights, names, order, f"Weights, row takes from column: {of}"),
        "clients.png": client_scores(summary),
    }
    if scored:
        figures["curves.png"] = learning_curves(scored, summary.method, summary.primary)
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(plots / name, dpi=110)
    return [plots / name for name in figures]


def cluster_order(similarity: Float[np.ndarray, "clients clients"]) -> list[int]:
    """An order of the clients in which similar ones are neighbours (average linkage on 1 − s), in O(n²)."""
    if len(similarity) < 3:
        return list(range(len(similarity)))
    distance = np.maximum(1 - (similarity + similarity.T) / 2, 0)  # inner products may be above 1
    np.fill_diagonal(distance, 0)
    condensed = spatial.squareform(np.nan_to_num(distance, nan=1.0), checks=False)
    tree = hierarchy.linkage(condensed, "average")
    if len(similarity) <= _OPTIMAL:
        tree = hierarchy.optimal_leaf_ordering(tree, condensed)
    return hierarchy.leaves_list(tree).tolist()


def heat_map(
    matrix: Float[np.ndarray, "clients clients"],
    names: Sequence[str],
    order: Sequence[int],
    title: str,
    points: int = _POINTS,
) -> Figure:
    """A matrix over pairs of clients; the colour scale spans the entries off the diagonal.

    Args:
        matrix: One value per pair.
        names: Names of the clients.
        order: The order to draw them in.
        title: Title.
        points: Most points a side; of more clients each is a mean over neighbours, as the title says.
    """
    n = len(names)
    side = 4.2 + 0.22 * min(n, 30)  # inches
    figure = Figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    shown = matrix[np.ix_(order, order)]
    # The diagonal, often ten times the rest, is told in numbers and left out of the colours.
    coloured = np.ma.masked_array(shown, np.eye(n, dtype=bool))
    if n > points:
        together = -(-n // points)
        coloured = block_means(coloured, together)
        title += f" (a point: mean of {together} × {together})"
    beside = coloured.compressed() if n > 1 else shown.ravel()
    top = float(np.nanmax(np.abs(beside))) or 1.0
    bottom = -top if np.nanmin(beside) < 0 else 0.0
    axes.set_facecolor("0.85")
    colours = "RdBu_r" if bottom < 0 else "Blues"
    image = axes.imshow(coloured, cmap=colours, vmin=bottom, vmax=top, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.8)
    if n <= _NAMED:
        labels = [readable(names[i], _LONGEST) for i in order]
        axes.set_xticks(range(n), labels, rotation=90, fontsize=8, parse_math=False)
        axes.set_yticks(range(n), labels, fontsize=8, parse_math=False)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_ylabel(f"{n:,} clients, those next to each other that are alike")
    if n <= 16:
        for row in range(n):
            for column in range(n):
                value = shown[row, column]
                dark = row != column and abs(value) > 0.6 * top
                text = f"{value:.2f}".replace("-0.00", "0.00")
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if dark else "0.2",
                )
    axes.set_title(title, fontsize=11, parse_math=False)
    if n > 1:
        own = np.diagonal(matrix)
        ends = [f"{end:.2g}" for end in (np.nanmin(own), np.nanmax(own))]
        ones = "1.00" if np.allclose(own, 1) else " to ".join(dict.fromkeys(ends))
        axes.set_xlabel(f"grey: a client with itself ({ones}), left out of the colours", fontsize=8)
    return figure


def block_means(matrix: np.ma.MaskedArray, together: int) -> np.ma.MaskedArray:
    """Means over squares of so many rows and columns, of what is finite and not masked."""
    known = np.isfinite(matrix).filled(False)
    edges = np.arange(0, len(matrix), together)

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, edges, axis=0), edges, axis=1)

    count = total(known.astype(np.float32))
    sums = total(np.where(known, matrix.data, 0.0))
    return np.ma.masked_array(sums / np.maximum(count, 1), count == 0)


def learning_curves(scored: Sequence[tuple[int, SplitScores]], method: str, metric: Metric) -> Figure:
    """Mean and worst of a metric on validation data by round, as received and after local training."""
    rounds = [round for round, _ in scored]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    names = {"aggregated": "aggregated θ̄ (as received)", "tuned": "tuned θ (after local training)"}
    for model, label in names.items():
        for statistic, style in (("mean", "-"), ("worst", ":")):
            found = [getattr(getattr(scores, model), statistic)[metric.name] for _, scores in scored]
            values = [metric.factor * value for value in found]
            axes.plot(
                rounds, values, style, marker="o", ms=4, color=COLOURS[model], label=f"{label}, {statistic}"
            )
    axes.set_xticks(rounds if len(rounds) <= 20 else rounds[:: len(rounds) // 10])
    axes.set_xlabel("round")
    axes.set_ylabel(f"validation {metric.title}")
    axes.set_title(f"{method}: clients' {metric.label} over the rounds", fontsize=11, parse_math=False)
    axes.grid(alpha=0.3)
    plain_legend(figure, ncols=2)
    return figure
