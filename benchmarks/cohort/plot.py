"""The benchmark as a picture."""

from pathlib import Path
from statistics import median
from typing import Any


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars: clients a second per shape on the left, seconds of the default job on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shapes = results.get("grid", {}).get("shapes", [])
    job = results.get("default job", {}).get("ways", {})
    panels = len(shapes) + bool(job)
    if not panels:
        return
    figure, axes = plt.subplots(1, panels, figsize=(4.2 * panels, 3.6), squeeze=False, layout="constrained")
    for axis, shape in zip(axes[0], shapes, strict=False):
        ways = {name: entry["clients_per_s"] for name, entry in shape["ways"].items()}
        colours = ["C0" if name.startswith("cohort") else "C7" for name in ways]
        bars = axis.barh(list(ways), list(ways.values()), color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.15)
        axis.set_xlabel("clients a second")
        axis.set_title(
            f"{shape['clients']} clients, batch {shape['batch']} × {shape['tokens']} tokens", fontsize=10
        )
    if job:
        axis = axes[0][-1]
        seconds = {name: median(turn["train_s"] for turn in turns) for name, turns in job.items()}
        bars = axis.barh(list(seconds), list(seconds.values()), color="C0")
        axis.bar_label(bars, fmt="%.3g s", padding=2, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.2)
        axis.set_xlabel("seconds of training")
        axis.set_title("default job", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
