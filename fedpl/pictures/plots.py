"""Pictures of a run, drawn from its summary.json and metrics.jsonl alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedpl.data.wording import readable
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.plain import LARGEST
from fedpl.records.results import Model, RunSummary
from fedpl.records.rounds import RoundRecord, read_rounds
from fedpl.records.scores import Metric

hierarchy, spatial = map(deferred, ("scipy.cluster.hierarchy", "scipy.spatial.distance"))

_COLOURS = {"local": "#9aa5b1", "fedavg": "#d98c5f", "aggregated": "#2a6f97", "tuned": "#89c2d9"}
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
        records = read_rounds(folder / "metrics.jsonl")
    except UserError as error:
        raise UserError(
            f"{folder} holds no finished run (summary.json and metrics.jsonl): {error}"
        ) from error
    names = list(summary.clients)
    similarity = np.array(summary.similarity, dtype=float)
    weights = np.array(summary.weights, dtype=float)
    order = cluster_order(similarity)
    figures = {
        "similarity.png": heat_map(similarity, names, order, "Similarity of task vectors, last round"),
        "weights.png": heat_map(weights, names, order, "Weights: row takes from column, last round"),
        "clients.png": client_bars(summary),
    }
    if any(record.validation for record in records):
        figures["curves.png"] = learning_curves(records, summary.method, summary.primary)
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


def learning_curves(records: Sequence[RoundRecord], method: str, metric: Metric) -> Figure:
    """Mean and worst of a metric on validation data over the rounds, as received and after local training."""
    scored = [(record.round, record.validation) for record in records if record.validation is not None]
    rounds = [round for round, _ in scored]
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    names = {"aggregated": "aggregated θ̄ (as received)", "tuned": "tuned θ (after local training)"}
    for model, label in names.items():
        for statistic, style in (("mean", "-"), ("worst", ":")):
            found = [getattr(getattr(scores, model), statistic)[metric.name] for _, scores in scored]
            values = [metric.factor * value for value in found]
            axes.plot(
                rounds, values, style, marker="o", ms=4, color=_COLOURS[model], label=f"{label}, {statistic}"
            )
    axes.set_xticks(rounds if len(rounds) <= 20 else rounds[:: len(rounds) // 10])
    axes.set_xlabel("round")
    axes.set_ylabel(f"validation {metric.title}")
    axes.set_title(f"{method}: clients' {metric.label} over the rounds", fontsize=11, parse_math=False)
    axes.grid(alpha=0.3)
    plain_legend(figure, ncols=2)
    return figure


def client_bars(summary: RunSummary) -> Figure:
    """The primary metric on test data of every client: baselines, the method, and the floor as a line.

    Of more than 64 clients there are curves, each over the clients in the order of its own values.
    """
    clients, metric = list(summary.clients), summary.primary
    values = {
        name: [baseline.clients[client].value("aggregated", metric) for client in clients]
        for name, baseline in summary.baselines.items()
    }
    models: tuple[Model, ...] = ("aggregated", "tuned")
    for model in models:
        # A client that took no part in the last round has no tuned model: no bar.
        own = [entry.scores.value(model, metric) for entry in summary.clients.values()]
        values[f"{summary.method}, {model}"] = own
    floor = [entry.scores.value("majority", metric) for entry in summary.clients.values()]
    values[summary.floor_name] = floor
    shown = {name: metric.factor * np.array(own) for name, own in values.items()}
    colours = [_COLOURS.get(name) for name in (*summary.baselines, *models)]
    figure = Figure(figsize=(max(6.4, 1.5 + 0.62 * min(len(clients), _NAMED)), 4.2), layout="constrained")
    axes = figure.subplots()
    if len(clients) > LARGEST:
        for (name, each), colour in zip(shown.items(), [*colours, "0.2"], strict=True):
            axes.plot(np.sort(each[np.isfinite(each)]), color=colour, lw=1.5, label=name)
        axes.set_xlabel("clients, each curve in the order of its own values")
    else:
        _bars(axes, shown, colours)
    if len(clients) <= _NAMED:
        labels = [readable(client, _LONGEST) for client in clients]
        axes.set_xticks(range(len(clients)), labels, rotation=45, ha="right", fontsize=8, parse_math=False)
    if metric.unit == "%":
        axes.set_ylim(0, 100)
    axes.set_ylabel(f"test {metric.title}")
    axes.set_title(f"Test {metric.label} per client", fontsize=11)
    plain_legend(figure, ncols=5)
    return figure


def _bars(
    axes: Axes, shown: Mapping[str, Float[np.ndarray, "clients"]], colours: Sequence[str | None]
) -> None:
    """A bar for each client and series; the last series is the floor, a line."""
    *series, (floor_name, floor) = shown.items()
    width, places = 0.8 / len(series), np.arange(len(floor))
    for i, ((name, values), colour) in enumerate(zip(series, colours, strict=True)):
        axes.bar(places + (i - (len(series) - 1) / 2) * width, values, width, label=name, color=colour)
    ends = np.append(places - 0.5, len(floor) - 0.5)
    axes.step(ends, [*floor, floor[-1]], where="post", color="0.2", lw=1)
    axes.plot([], [], color="0.2", lw=1, label=floor_name)


def plain_legend(figure: Figure, ncols: int) -> None:
    """A legend below; names are what they are, also with a $ in them, which would begin a formula."""
    for text in figure.legend(fontsize=8, ncols=ncols, loc="outside lower center").get_texts():
        text.set_parse_math(False)
