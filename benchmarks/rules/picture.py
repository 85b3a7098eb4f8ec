"""The picture of ``benchmarks.rules``: where each rule works."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_SHOWN = (
    "individual",
    "one group",
    "two groups",
    "two opposed",
    "pairs",
    "pairs in a common direction",
    "9 : 2 : 1",
    "conventions cross domains",
)
_STYLE = {
    "local only": ("0.45", ":"),
    "average": ("0.45", "--"),
    "true groups": ("0.0", "--"),
    "FedBip": ("#7a9cc6", "-"),
    "fedbip_w": ("#e0a458", "-"),
    "silhouette": ("#8f6fb0", "-"),
    "groups": ("#c1272d", "-"),
    "agreement": ("#1d7874", "-"),
    "pFedGraph": ("#4c956c", ":"),
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Cosine of updates with the truth by size of the signal, a panel for each structure."""
    figure = Figure(figsize=(11, 5.9), layout="constrained")
    panels = figure.subplots(2, 4, sharex=True).ravel()
    chosen = [c for c in results["cells"] if c["n"] == 12 and c["kind"] == "adapter"]
    for panel, structure in zip(panels, _SHOWN, strict=True):
        for rule, (colour, line) in _STYLE.items():
            own = sorted(
                (c["size"], c["runs"]) for c in chosen if (c["structure"], c["rule"]) == (structure, rule)
            )
            values = [np.mean([run["cosine"] for run in runs]) for _, runs in own]
            width = 2.4 if rule in ("groups", "agreement") else 1.3
            panel.plot([size for size, _ in own], values, line, color=colour, lw=width, label=rule)
        panel.set_title(structure, fontsize=10)
    figure.supxlabel("length of the groups' directions; noise has length 1")
    figure.supylabel("cosine of the update with the true direction")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(path, dpi=110)
