"""Draws ``round.png``: one round of personalised aggregation. Run: python docs/draw_round.py"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

GROUPS = ("#2a6f97", "#2a6f97", "#d98c5f")
SIMILARITY = np.array([[1.0, 0.6, -0.1], [0.6, 1.0, 0.0], [-0.1, 0.0, 1.0]])
WEIGHTS = SIMILARITY / SIMILARITY.sum(1, keepdims=True)


def box(axes: Axes, x: float, y: float, width: float, text: str, colour: str) -> None:
    shape = FancyBboxPatch(
        (x, y - 0.32), width, 0.64, "round,pad=0.02,rounding_size=0.12", fc=colour, ec="none"
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y, text, ha="center", va="center", color="white", fontsize=11)


def arrow(axes: Axes, begin: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    style = {"arrowstyle": "-|>", "color": "0.35", "lw": 1.3}
    axes.annotate("", end, begin, arrowprops=style)
    axes.text(
        (begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2 + 0.12, text, ha="center", fontsize=9, color="0.25"
    )


def matrix(axes: Axes, x: float, y: float, values: np.ndarray, title: str) -> None:
    axes.imshow(values, extent=(x, x + 1.8, y - 0.9, y + 0.9), cmap="RdBu_r", vmin=-1, vmax=1, zorder=2)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            place = x + 0.3 + 0.6 * column, y + 0.6 - 0.6 * row
            colour = "white" if value > 0.55 else "0.2"
            axes.text(
                *place, f"{value:.1f}".replace("-", "−"), ha="center", va="center", fontsize=9, color=colour
            )
    axes.text(x + 0.9, y + 1.05, title, ha="center", fontsize=10)


figure = Figure(figsize=(11, 3.9), layout="constrained")
axes = figure.subplots()
for i, (y, colour) in enumerate(zip((2.4, 1.2, 0.0), GROUPS, strict=True)):
    name = "₁₂₃"[i]
    box(axes, 0, y, 0.9, f"θ̄{name}", colour)
    arrow(axes, (0.95, y), (2.3, y), "receives")
    box(axes, 2.4, y, 1.9, f"client {i + 1} trains θ{name}", colour)
    arrow(axes, (4.35, y), (5.9, y), f"τ{name} = θ{name} − θ̄{name}")
    arrow(axes, (10.75, 1.2 + 0.4 * (1 - i)), (11.9, y))
    box(axes, 12.0, y, 2.6, f"θ̄{name} ← θ̄{name} + Σₖ p{name}ₖ τₖ", colour)
matrix(axes, 6.2, 1.2, SIMILARITY, "compare: cos(τᵢ, τₖ)")
arrow(axes, (8.1, 1.2), (8.8, 1.2))
matrix(axes, 8.9, 1.2, WEIGHTS, "weigh: pᵢₖ, rows sum to 1")
axes.text(2.3, 3.15, "clients, private data", fontsize=10, color="0.4")
axes.text(10.4, 3.15, "server, task vectors only", fontsize=10, color="0.4")
axes.plot([6.0, 6.0], [-0.6, 3.0], ":", color="0.6")
axes.set_xlim(-0.1, 14.7)
axes.set_ylim(-0.7, 3.45)
axes.set_aspect("equal")
axes.axis("off")
figure.savefig(Path(__file__).with_name("round.png"), dpi=100)
