"""The clients' scores as a picture: bars for few, dots for more, distributions for many."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedpl.data.wording import readable
from fedpl.pictures.style import COLOURS, plain_legend
from fedpl.records.plain import LARGEST
from fedpl.records.results import Model, RunSummary
from fedpl.records.scores import Metric

_BARS = 20  # clients; of more, dots in the order of their scores
_LONGEST = 24  # characters of a name
_MARKERS = "so^Dv"


def client_scores(summary: RunSummary) -> Figure:
    """The primary metric on test data of every client: baselines, the method, and the floor.

    Up to 20 clients are bars, up to 64 dots by name in the order of their scores; of more there are curves,
    each over the clients in the order of its own values, beside a histogram of the gain over training alone.
    """
    metric, many = summary.primary, len(summary.clients)
    series, floor = _series(summary)
    title = f"{summary.method}, round {summary.rounds}: test {metric.label} per client"
    if many <= _BARS:
        figure = Figure(figsize=(max(6.4, 1.5 + 0.62 * many), 4.2), layout="constrained")
        _bars(figure.subplots(), summary, series, floor)
    elif many <= LARGEST:
        figure = Figure(figsize=(7.2, 1.8 + 0.19 * many), layout="constrained")
        _dots(figure.subplots(), summary, series, floor)
    else:
        alone = "local" in summary.baselines
        figure = Figure(figsize=(10.5 if alone else 6.4, 4.2), layout="constrained")
        left, *right = np.atleast_1d(figure.subplots(1, 1 + alone))
        _curves(left, metric, series | {summary.floor_name: floor})
        for axes in right:
            _gains(axes, summary, metric)
    figure.suptitle(title, fontsize=11).set_parse_math(False)
    plain_legend(figure, ncols=5 if many <= _BARS else 3)
    return figure


def _series(
    summary: RunSummary,
) -> tuple[dict[str, Float[np.ndarray, "clients"]], Float[np.ndarray, "clients"]]:
    """Values of every model for people, and of the floor; NaN where a client has no such score."""
    metric, clients = summary.primary, summary.clients
    values = {
        name: [baseline.clients[client].value("aggregated", metric) for client in clients]
        for name, baseline in summary.baselines.items()
    }
    models: tuple[Model, ...] = ("aggregated", "tuned")
    for model in models:
        own = [entry.scores.value(model, metric) for entry in clients.values()]
        values[f"{summary.method}, {model}"] = own
    floor = [entry.scores.value("majority", metric) for entry in clients.values()]
    return {name: metric.factor * np.array(own) for name, own in values.items()}, metric.factor * np.array(
        floor
    )


def _colour(name: str) -> str | None:
    return COLOURS.get(name.rpartition(", ")[2])


def _bars(
    axes: Axes,
    summary: RunSummary,
    series: Mapping[str, Float[np.ndarray, "clients"]],
    floor: Float[np.ndarray, "clients"],
) -> None:
    """A bar for each client and series; the floor is a line."""
    width, places = 0.8 / len(series), np.arange(len(floor))
    for i, (name, values) in enumerate(series.items()):
        axes.bar(places + (i - (len(series) - 1) / 2) * width, values, width, label=name, color=_colour(name))
    ends = np.append(places - 0.5, len(floor) - 0.5)
    axes.step(ends, [*floor, floor[-1]], where="post", color="0.2", lw=1)
    axes.plot([], [], color="0.2", lw=1, label=summary.floor_name)
    labels = [readable(client, _LONGEST) for client in summary.clients]
    axes.set_xticks(places, labels, rotation=45, ha="right", fontsize=8, parse_math=False)
    axes.set_xlim(ends[0] - 0.2, ends[-1] + 0.2)
    if summary.primary.unit == "%":
        axes.set_ylim(0, 100)
    axes.set_ylabel(f"test {summary.primary.title}")


def _dots(
    axes: Axes,
    summary: RunSummary,
    series: Mapping[str, Float[np.ndarray, "clients"]],
    floor: Float[np.ndarray, "clients"],
) -> None:
    """A line for each client, the best on top; a dot for each series, and a stroke for the floor."""
    order = np.argsort(np.nan_to_num(series[f"{summary.method}, aggregated"], nan=-np.inf), kind="stable")
    order = order if summary.primary.higher else order[::-1]
    places = np.arange(len(order))
    for (name, values), marker in zip(series.items(), _MARKERS * len(series), strict=False):
        axes.plot(values[order], places, marker, ms=5, color=_colour(name), label=name, mec="white", mew=0.4)
    axes.plot(floor[order], places, "|", color="0.2", label=summary.floor_name)
    labels = [readable(client, _LONGEST) for client in np.array(list(summary.clients))[order]]
    axes.set_yticks(places, labels, fontsize=7, parse_math=False)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.grid(alpha=0.3)
    axes.set_xlabel(f"test {summary.primary.title}")


def _curves(axes: Axes, metric: Metric, series: Mapping[str, Float[np.ndarray, "clients"]]) -> None:
    for name, values in series.items():
        dashes = ":" if name.endswith(", tuned") else "-"
        known = np.sort(values[np.isfinite(values)])
        axes.plot(known, dashes, color=_colour(name) or "0.2", lw=1.8, label=name)
    axes.set_xlabel("clients, each curve in the order of its own values")
    axes.set_ylabel(f"test {metric.title}")
    axes.grid(alpha=0.3)


def _gains(axes: Axes, summary: RunSummary, metric: Metric) -> None:
    """How many clients gain how much over training alone by the aggregate."""
    alone = summary.baselines["local"]
    found = np.array(
        [
            own.scores.value("aggregated", metric) - alone.scores_of(client).value("aggregated", metric)
            for client, own in summary.clients.items()
        ]
    )
    known = metric.factor * metric.sign * found[np.isfinite(found)]
    axes.hist(known, bins=min(40, max(10, len(known) // 8)), color=COLOURS["aggregated"])
    axes.axvline(0, color="0.2", lw=1)
    axes.set_xlabel(f"gain over training alone{', points' if metric.unit == '%' else ''}")
    axes.set_ylabel(f"clients ({int((known < 0).sum())} of {len(known)} lose)")
