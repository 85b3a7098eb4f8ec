"""Pictures of a sweep: which parameters matter, and which values go with which score."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from fedpl.sweep.plan import Sweep
from fedpl.sweep.space import Dimension

_MAP = colormaps["viridis"]
_TICKS = 5


def importance_bars(importance: Mapping[str, float], metric: str) -> Figure:
    """Share of each parameter in what explains the metric.

    Args:
        importance: Shares by parameter.
        metric: What is explained.
    """
    order = sorted(importance, key=lambda name: importance[name])
    figure = Figure(figsize=(6.4, 1.3 + 0.42 * len(order)), layout="constrained")
    axes = figure.subplots()
    values = [importance[name] for name in order]
    axes.barh(range(len(order)), values, height=0.6, color="#2a6f97")
    for place, value in enumerate(values):
        axes.text(value + 0.01, place, f"{value:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), order, fontsize=9, parse_math=False)
    axes.set_xlim(0, max(1.0, max(values)) * 1.08)
    axes.set_xlabel("importance (fANOVA share of the variance)")
    axes.set_title(metric, fontsize=11)
    return figure


def parallel_coordinates(entries: Sequence[Mapping[str, Any]], sweep: Sweep) -> Figure:
    """One line a trial through its values, coloured by its score; dashed where it was cut short.

    Args:
        entries: Trials with ``parameters``, ``value`` and ``state``.
        sweep: The sweep.
    """
    dimensions = [d for d in sweep.dimensions if d.distribution != "constant"]
    shown = [entry for entry in entries if entry["value"] is not None]
    values = np.array([entry["value"] for entry in shown], dtype=float)
    low, high = float(values.min()), float(values.max())
    margin = 0.0 if high > low else 0.01  # all alike: in the middle of the scale
    norm = Normalize(low - margin, high + margin)
    columns = [_column(d, [entry["parameters"][d.name] for entry in shown]) for d in dimensions]
    columns.append((norm(values).data.tolist(), _numbers(low, high, False)))
    figure = Figure(figsize=(2.0 + 1.9 * len(columns), 4.4), layout="constrained")
    axes = figure.subplots()
    # The best are drawn last, above the others.
    order = np.argsort(values if sweep.goal == "maximize" else -values)
    for i in order:
        complete = shown[i]["state"] == "complete"
        heights = [column[0][i] for column in columns]
        style = "-" if complete else ":"
        axes.plot(range(len(columns)), heights, style, color=_MAP(norm(values[i])), lw=1.6, alpha=0.85)
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color="0.3", lw=0.8)
        for height, label in ticks:
            axes.plot([place - 0.02, place], [height, height], color="0.3", lw=0.8)
            axes.text(
                place - 0.04,
                height,
                label,
                parse_math=False,
                ha="right",
                va="center",
                fontsize=7.5,
                bbox={"facecolor": "white", "alpha": 0.7, "pad": 0.6, "lw": 0},
            )
    names = [*(d.name for d in dimensions), sweep.metric]
    axes.set_xticks(range(len(columns)), [_wrapped(name) for name in names], fontsize=8.5)
    axes.set_xlim(-0.6, len(columns) - 0.8)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([])
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(ScalarMappable(norm, _MAP), ax=axes, shrink=0.8, label=sweep.metric)
    cut = any(entry["state"] != "complete" for entry in shown)
    axes.set_title(
        f"{sweep.name}: {len(shown)} trials" + (" (dotted: cut short)" if cut else ""), fontsize=11
    )
    return figure


def _column(dimension: Dimension, values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights of the values of one parameter, and the labels of its axis."""
    if dimension.choices is not None or not all(isinstance(value, int | float) for value in values):
        kinds = list(dict.fromkeys(map(str, dimension.choices or values)))
        steps = max(len(kinds) - 1, 1)
        place = {kind: i / steps if len(kinds) > 1 else 0.5 for i, kind in enumerate(kinds)}
        return [place[str(value)] for value in values], [(place[k], _short(k)) for k in kinds]
    logarithmic = dimension.logarithmic and min(values) > 0
    scaled = [math.log(value) if logarithmic else float(value) for value in values]
    low, high = min(scaled), max(scaled)
    heights = [(value - low) / (high - low) if high > low else 0.5 for value in scaled]
    return heights, _numbers(min(values), max(values), logarithmic)


def _numbers(low: float, high: float, logarithmic: bool) -> list[tuple[float, str]]:
    """Labels at even heights of an axis from low to high."""
    if high <= low:
        return [(0.5, f"{low:.3g}")]
    found = []
    for height in np.linspace(0, 1, _TICKS):
        value = low * (high / low) ** height if logarithmic else low + (high - low) * height
        found.append((float(height), f"{value:.3g}"))
    return found


def _short(text: str) -> str:
    return text.rsplit(".", 1)[-1] if text.count(".") > 1 else text


def _wrapped(name: str) -> str:
    """A dotted name in several lines."""
    return name.replace(".", ".\n").replace("/", "/\n")
