"""The picture of a comparison."""

import numpy as np
from matplotlib.figure import Figure

from fedpl.pictures.plots import plain_legend
from fedpl.records.comparison import Comparison

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
