"""The picture of a run: throughput against the number of clients, with the machine's own limit."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

STYLES = {
    "ours": "o-",
    "torch": "s--",
    "numpy": "^--",
    "scipy": "v--",
    "flower": "x:",
    "pfl": "+:",
    "fedjax": "d:",
}
SHOWN = {
    "gram": (
        "ours highest",
        "ours tf32",
        "ours bf16",
        "torch",
        "scipy ssyrk",
        "torch tf32",
        "torch bf16",
        "numpy",
        "flower_distances",
    ),
    "mix": (
        "ours onto base",
        "ours onto base tf32",
        "ours onto base bf16",
        "ours",
        "torch out=",
        "torch addmm_",
        "torch out= tf32",
        "numpy out=",
        "scipy sgemm, beta 1",
        "flower_average",
        "pfl_sum",
        "fedjax_mean",
    ),
}


def draw(report: dict, path: Path) -> None:
    """One panel for the Gram, one for the mix: operations a second (2 n² d, or 2 n d for one average)."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True)
    for axis, operation in zip(axes, ("gram", "mix"), strict=True):
        cases = [case for case in report["cases"] if case["operation"] == operation]
        for name in SHOWN[operation]:
            points = sorted((c["n"], c["operations_per_s"] / 1e9) for c in cases if c["name"] == name)
            if points:
                style = next(look for key, look in STYLES.items() if name.startswith(key))
                axis.plot(*zip(*points, strict=True), style, label=name)
        axis.axhline(report["limits"]["highest"] / 1e9, color="black", label="square product, float32")
        if operation == "gram":
            axis.axhline(
                2 * report["limits"]["highest"] / 1e9, color="grey", ls=":", label="twice that (symmetry)"
            )
        axis.set(xscale="log", yscale="log", xlabel="clients n", title=operation)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    axes[0].set_ylabel("Gop/s, counted as 2 n² d")
    where = f"{report['device']}, {report['machine']['cpu']}, {report['threads']} threads"
    figure.suptitle(f"{where}, commit {report['commit']}")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
