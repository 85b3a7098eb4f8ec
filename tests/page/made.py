"""Run directories of made-up numbers, and what is in a page's HTML."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from fedpl.files import write_array
from fedpl.records.scores import Metric
from fedpl.tasks.metrics import CLASSIFICATION
from tests.made_up import record, result, summary

NASTY = """</script><img src=x onerror="alert(1)">&'{{ 7*7 }}\u202e"""


def made_run(
    folder: Path,
    values: Mapping[str, float],
    alone: Mapping[str, float] | None = None,
    metrics: Sequence[Metric] = CLASSIFICATION,
    rounds: int = 2,
    finished: bool = True,
    method: str = "m",
    **changes: Any,
) -> Path:
    """A run directory of made-up numbers, in which the clients are two groups by turns."""
    n, rng = len(values), np.random.default_rng(0)
    group = np.arange(n) % 2
    (folder / "matrices").mkdir(parents=True)
    lines = []
    for number in range(1, rounds + 1):
        similarity = np.where(group[:, None] == group, 0.4, 0.1) + rng.normal(0, 0.02, (n, n))
        similarity = (similarity + similarity.T) / 2
        np.fill_diagonal(similarity, 1)
        weights = similarity / similarity.sum(1, keepdims=True)
        for name, matrix in (("similarity", similarity), ("weights", weights)):
            path = folder / "matrices" / f"round-{number:04d}-{name}.npy"
            write_array(path, matrix.astype(np.float32))
        lines.append(json.dumps(record(values, metrics, round=number, method=method).to_json()))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = f"name: {method}\nseed: 0\nrounds: {rounds + (not finished)}\nnote: {json.dumps(NASTY)}\n"
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    baselines = {} if alone is None else {"local": result(alone, metrics)}
    if finished:
        found = summary(values, metrics, baselines)
        more = {"method": method, "rounds": rounds, "weights": weights, "similarity": similarity}
        dataclasses.replace(found, **more | changes).write(folder)
    return folder


class Elements(HTMLParser):
    """Every element with its attributes, cells of tables by row, text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[str | None, list[str]]] = []
        self.text, self.open = "", ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.open = tag
        if tag == "tr":
            self.rows.append((dict(attributes).get("class"), []))
        if tag in ("td", "th") and self.rows:
            self.rows[-1][1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in ("td", "th"):
            self.rows[-1][1][-1] += data.strip()
        if self.open not in ("script", "style"):
            self.text += data

    def row(self, name: str) -> list[str]:
        """The first row with this name."""
        return next(cells for _, cells in self.rows if cells and cells[0] == name)

    def headline(self) -> str:
        return re.sub(r"\s+", " ", self.text)


def values(n: int) -> dict[str, float]:
    return {f"client {i}": 0.5 + (i * 7 % 40) / 100 for i in range(n)}
