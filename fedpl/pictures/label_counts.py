"""How many training examples of each class clients have, as a picture."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from fedpl.data.wording import readable

_NAMED = 48  # beyond so many clients their names would overlap
_CLASSES = 9  # that have a colour of their own


def draw_labels(labels: Mapping[str, Sequence[int]], classes: Sequence[str], path: Path) -> None:
    """Draw a bar for each client, parted by class; the most frequent classes, the others as one.

    Args:
        labels: Class of every training example by client.
        classes: Names of the classes.
        path: The PNG.
    """
    total = Counter(label for own in labels.values() for label in own)
    shown = [label for label, _ in total.most_common(_CLASSES)]
    counts = {client: Counter(own) for client, own in labels.items()}
    figure = Figure(figsize=(8, min(2 + 0.22 * len(labels), 14)), layout="constrained")
    axes = figure.subplots()
    places, left = np.arange(len(labels)), np.zeros(len(labels))
    colours = colormaps["cividis"](np.linspace(0, 1, max(len(shown), 2)))
    for label, colour in zip(shown, colours, strict=False):
        width = np.array([own[label] for own in counts.values()])
        axes.barh(places, width, left=left, color=colour, height=0.85, label=readable(classes[label], 24))
        left += width
    rest = np.array([own.total() for own in counts.values()]) - left
    if rest.any():
        axes.barh(
            places, rest, left=left, color="#c8ccd0", height=0.85, label=f"{len(total) - len(shown)} others"
        )
    if len(labels) <= _NAMED:
        axes.set_yticks(places, [readable(client, 24) for client in labels], fontsize=8)
    else:
        axes.set_ylabel(f"{len(labels):,} clients")
    axes.invert_yaxis()
    axes.set_xlabel("training examples")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False)
    axes.margins(y=0.08)
    figure.savefig(path, dpi=110)
