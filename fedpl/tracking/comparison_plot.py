"""The picture of a comparison."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

_STYLE = {
    "aggregated": ("#2a6f97", "o", "aggregated θ̄ (as received)", -0.13),
    "tuned": ("#d98c5f", "D", "tuned θ (after local training)", 0.13),
}


def method_dots(comparison: dict[str, Any]) -> Figure:
    """Mean test accuracy of each method with its standard deviation over seeds; every seed a small dot.

    Args:
        comparison: The content of comparison.json.
    """
    methods = comparison["methods"]
    height = 0.5 if len(methods) <= 10 else 0.32  # inches a method
    figure = Figure(figsize=(6.8, 1.7 + height * len(methods)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(methods))
    for model, (colour, marker, label, shift) in _STYLE.items():
        found = [entry[model]["accuracy"] for entry in methods.values()]
        axes.errorbar(
            [100 * value["mean"] for value in found],
            places + shift,
            xerr=[100 * (value["sd"] or 0) for value in found],
            fmt=marker,
            ms=6,
            capsize=3,
            color=colour,
            label=label,
        )
        for place, method in zip(places, methods, strict=True):
            seeds = [100 * run[model]["accuracy"] for run in comparison["runs"] if run["method"] == method]
            axes.plot(seeds, [place + shift] * len(seeds), ".", ms=4, color=colour, alpha=0.45)
    if "local" in methods:
        alone = 100 * methods["local"]["aggregated"]["accuracy"]["mean"]
        axes.axvline(alone, color="0.4", lw=1, ls=":", label="local only, mean")
    axes.set_yticks(places, list(methods))
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlabel("test accuracy, mean over clients, %")
    n = len(comparison["seeds"])
    over = f"mean and standard deviation over {n} seeds" if n > 1 else "one seed"
    axes.set_title(f"After {comparison['rounds']} rounds: {over}", fontsize=11)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    return figure
