"""A comparison as a table for people, as CSV and as LaTeX."""

import csv
import io
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedpl.comparison.statistics import MODELS, SCORES

_NAMES = {"aggregated": "θ̄", "tuned": "θ"}
_LATEX = {"aggregated": r"$\bar\theta$", "tuned": r"$\theta$"}


def spread(value: dict[str, Any] | None, sign: str = "") -> str:
    """Mean ± standard deviation over seeds in %; the mean alone where there is one seed, – for nothing.

    Args:
        value: Mean and standard deviation.
        sign: "+" shows it always.
    """
    if value is None:
        return "–"
    mean = f"{round(100 * value['mean'], 1) + 0.0:{sign}.1f}"  # + 0.0: no minus before a zero
    return mean if value["sd"] is None else f"{mean} ± {100 * value['sd']:.1f}"


_HEADER = ("accuracy", "gain", "worst", "decile", "harmed", "MB", "s")


def _cells(entry: dict[str, Any], model: str) -> list[str]:
    """Macro-F1 is in the JSON and the CSV; a terminal is 80 columns wide."""
    found = entry[model]
    gained = spread(found["gain"], "+")
    hurt = "–" if found["harmed"] is None else str(len(found["harmed"]))
    costs = (f"{1e-6 * entry['bytes']['mean']:.1f}", f"{entry['seconds']['mean']:.0f}")
    costs = costs if model == MODELS[0] else ("", "")
    accuracy, worst, decile = (spread(found[name]) for name in ("accuracy", "worst", "bottom_decile"))
    return [accuracy, gained, worst, decile, hurt, *costs]


def rich_table(comparison: dict[str, Any]) -> Table:
    """Two rows a method: the aggregate θ̄ as received, and θ after local training."""
    seeds = comparison["seeds"]
    over = f"mean±sd over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    title = f"Test accuracy, %, after {comparison['rounds']} rounds, {over}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("method", no_wrap=True)
    table.add_column("")
    for name in _HEADER:
        table.add_column(name, justify="right", no_wrap=True)
    for method, entry in comparison["methods"].items():
        for model in MODELS:
            cells = [cell.replace(" ± ", "±") for cell in _cells(entry, model)]
            table.add_row(method if model == MODELS[0] else "", _NAMES[model], *cells)
        table.add_section()
    return table


def caption(comparison: dict[str, Any]) -> str:
    """What the columns mean."""
    points = f"{100 * comparison['harm_margin']:g}"
    harm = (
        f"harmed: clients that on average over seeds lie more than {points} points below local-only training"
        if "local" in comparison["methods"]
        else "harmed: unknown; put local among the methods"
    )
    return (
        f"θ̄: the aggregate as received, θ: after local training; gain: over local-only training, seed by "
        f"seed; worst, decile: the worst client and the lowest tenth; {harm}; MB: traffic both ways; s: "
        f"training, aggregation and scoring"
    )


def as_csv(comparison: dict[str, Any]) -> str:
    """One line per run and model, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "seed", "model", *SCORES, "bytes", "seconds", "run_dir"])
    for run in comparison["runs"]:
        for model in MODELS:
            found = [run[model][name] for name in SCORES]
            writer.writerow(
                [run["method"], run["seed"], model, *found, run["bytes"], run["seconds"], run["run_dir"]]
            )
    return text.getvalue()


def as_latex(comparison: dict[str, Any]) -> str:
    """A tabular for the package booktabs."""
    header = ["method", "", *_HEADER]
    lines = [r"\begin{tabular}{ll" + "r" * (len(header) - 2) + "}", r"\toprule"]
    lines.append(" & ".join(_escape(name) for name in header) + r" \\")
    for method, entry in comparison["methods"].items():
        lines.append(r"\midrule")
        for model in MODELS:
            cells = [_escape(cell) for cell in _cells(entry, model)]
            name = _escape(method) if model == MODELS[0] else ""
            lines.append(" & ".join([name, _LATEX[model], *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_markdown(comparison: dict[str, Any]) -> str:
    """One row a method: accuracy and gain, then worst client, lowest tenth and harm of θ̄ / of θ; costs."""
    header = ["method", "accuracy θ̄", "gain", "accuracy θ", "gain", "worst", "decile", "harmed", "MB", "s"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for method, entry in comparison["methods"].items():
        both = zip(*(_cells(entry, model) for model in MODELS), strict=True)
        (received, tuned), (gain, tuned_gain), worst, decile, hurt, (traffic, _), (seconds, _) = both
        pairs = [" / ".join(cell.split(" ±")[0] for cell in pair) for pair in (worst, decile, hurt)]
        cells = [f"`{method}`", received, gain, tuned, tuned_gain, *pairs, traffic, seconds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", caption(comparison), ""])


def _escape(text: str) -> str:
    for plain, latex in (("_", r"\_"), ("%", r"\%"), (" ± ", r" $\pm$ "), (">", "$>$"), ("–", "--")):
        text = text.replace(plain, latex)
    return text
