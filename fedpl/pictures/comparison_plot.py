"""The pictures of a comparison: every method's result, and every method by round."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fedpl.pictures.style import plain_legend
from fedpl.records.comparison import Comparison
from fedpl.records.rounds import RoundRecord
from fedpl.records.scores import Metric

# Of Okabe and Ito: told apart also without seeing red or green; beyond, other dashes.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", ":", "-.")
_MARKERS = "osD^vP*X"
_STYLE = {
    "aggregated": ("#2a6f97", "o", "aggregated θ̄ (as received)", -0.13),
    "tuned": ("#d98c5f", "D", "tuned θ (after local training)", 0.13),
}


def method_dots(comparison: Comparison) -> Figure:
    """Mean of the primary metric of each method with its standard deviation over seeds; every seed a dot."""
    methods, metric = comparison.methods, comparison.primary
    height = 0.5 if len(methods) <= 10 else 0.32  # inches a method
    figure = Figure(figsize=(6.8, 1.7 + height * len(methods)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(methods))
    for model, (colour, marker, label, shift) in _STYLE.items():
        found = [entry.of(model).scores[metric.name] for entry in methods.values()]
        axes.errorbar(
            [metric.factor * value.mean for value in found],
            places + shift,
            xerr=[metric.factor * (value.sd or 0) for value in found],
            fmt=marker,
            ms=6,
            capsize=3,
            color=colour,
            label=label,
        )
        for place, method in zip(places, methods, strict=True):
            runs = [run.of(model) for run in comparison.runs if run.method == method]
            seeds = [metric.factor * scores[metric.name] for scores in runs]
            axes.plot(seeds, [place + shift] * len(seeds), ".", ms=4, color=colour, alpha=0.45)
    if "local" in methods:
        alone = metric.factor * methods["local"].aggregated.scores[metric.name].mean
        axes.axvline(alone, color="0.4", lw=1, ls=":", label="local only, mean")
    axes.set_yticks(places, list(methods), parse_math=False)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlabel(f"test {metric.label}, mean over clients" + (f", {metric.unit}" if metric.unit else ""))
    n = len(comparison.seeds)
    over = f"mean and standard deviation over {n} seeds" if n > 1 else "one seed"
    axes.set_title(f"After {comparison.rounds} rounds: {over}", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    plain_legend(figure, ncols=3)
    return figure


def rounds_by_method(records: Mapping[str, Sequence[Sequence[RoundRecord]]], metric: Metric) -> Figure | None:
    """Mean of a metric on validation data by round: each method's mean over seeds, one deviation about it.

    Args:
        records: The rounds of every seed, by method.
        metric: Which.

    Returns:
        One panel for the models as received and one after local training; None where no round was scored.
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    drawn = False
    for axes, model in zip(panels, _STYLE, strict=True):
        for number, (method, seeds) in enumerate(records.items()):
            rounds, mean, deviation = _over_seeds(seeds, model, metric)
            if not rounds:
                continue
            drawn = True
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(
                rounds,
                mean,
                _DASHES[number // len(_COLOURS) % len(_DASHES)],
                marker=_MARKERS[number % len(_MARKERS)],
                ms=4 if len(rounds) <= 30 else 0,
                lw=1.6,
                color=colour,
                label=method if model == "aggregated" else None,
            )
            axes.fill_between(rounds, mean - deviation, mean + deviation, color=colour, alpha=0.13, lw=0)
        axes.set_title(_STYLE[model][2], fontsize=10)
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if not drawn:
        return None
    panels[0].set_ylabel(f"validation {metric.title}, mean over clients")
    n = max(len(seeds) for seeds in records.values())
    over = f"mean over {n} seeds, shaded: one standard deviation" if n > 1 else "one seed"
    figure.suptitle(f"By round: {over}", fontsize=11)
    plain_legend(figure, ncols=6)
    return figure


def _over_seeds(
    seeds: Sequence[Sequence[RoundRecord]], model: str, metric: Metric
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The rounds that every seed has scored, and mean and standard deviation over seeds in each."""
    curves = [
        {
            record.round: metric.factor * getattr(record.validation, model).mean[metric.name]
            for record in records
            if record.validation is not None
        }
        for records in seeds
    ]
    rounds = sorted(set.intersection(*map(set, curves)))
    values = np.array([[curve[round] for round in rounds] for curve in curves])
    deviation = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(rounds))
    return rounds, values.mean(0), deviation
