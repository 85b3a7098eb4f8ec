"""A comparison as a table for people, as CSV and as LaTeX."""

import csv
import io
import math

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fedpl.compare.paired import rejected
from fedpl.compare.statistics import MODELS, TAILS, score_names
from fedpl.records.comparison import Comparison, MethodEntry, Spread
from fedpl.records.scores import Metric

_NAMES = {"aggregated": "θ̄", "tuned": "θ"}
_LATEX = {"aggregated": r"$\bar\theta$", "tuned": r"$\theta$"}


def spread(value: Spread | None, metric: Metric, sign: str = "") -> str:
    """Mean ± standard deviation over seeds; the mean alone where there is one seed, – for nothing.

    Args:
        value: Mean and standard deviation.
        metric: Of which metric.
        sign: "+" shows it always.
    """
    if value is None or math.isnan(value.mean):
        return "–"
    mean = metric.shown(value.mean, sign)
    return mean if value.sd is None else f"{mean} ± {metric.shown(value.sd)}"


def _header(comparison: Comparison) -> tuple[str, ...]:
    return (comparison.primary.label, "gain", "worst", "decile", "harmed", "MB", "s")


def _cells(entry: MethodEntry, model: str, metric: Metric) -> list[str]:
    """The other metrics are in the JSON and the CSV; a terminal is 80 columns wide."""
    found = entry.of(model)
    gained = spread(found.gain, metric, "+")
    hurt = "–" if found.harmed is None else str(len(found.harmed))
    costs = (f"{1e-6 * entry.bytes.mean:.1f}", f"{entry.seconds.mean:.0f}")
    costs = costs if model == MODELS[0] else ("", "")
    mean, worst, decile = (spread(found.scores[name], metric) for name in (metric.name, *TAILS))
    return [mean, gained, worst, decile, hurt, *costs]


def rich_table(comparison: Comparison) -> Table:
    """Two rows a method: the aggregate θ̄ as received, and θ after local training."""
    seeds = comparison.seeds
    over = f"mean±sd over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    title = f"Test {comparison.primary.title}, after {comparison.rounds} rounds, {over}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("method", no_wrap=True)
    table.add_column("")
    for name in _header(comparison):
        table.add_column(name, justify="right", no_wrap=True)
    for method, entry in comparison.methods.items():
        for model in MODELS:
            cells = [cell.replace(" ± ", "±") for cell in _cells(entry, model, comparison.primary)]
            table.add_row(Text(method if model == MODELS[0] else ""), _NAMES[model], *cells)
        table.add_section()
    return table


def caption(comparison: Comparison) -> str:
    """What the columns mean."""
    metric = comparison.primary
    margin = f"{metric.factor * comparison.harm_margin:g}{' points' if metric.unit == '%' else ''}"
    side, tenth = ("below", "lowest") if metric.higher else ("above", "highest")
    harm = (
        f"harmed: clients that on average over seeds lie more than {margin} {side} local-only training"
        if "local" in comparison.methods
        else "harmed: unknown; put local among the methods"
    )
    if told := _tested(comparison):
        harm += f"; {told}"
    return (
        f"θ̄: the aggregate as received, θ: after local training; gain: over local-only training, seed by "
        f"seed; worst, decile: the worst client and the {tenth} tenth; {harm}; MB: traffic both ways; s: "
        f"training, aggregation and scoring"
    )


def _tested(comparison: Comparison) -> str:
    """Which models leave clients worse than training alone, by the paired test; empty where none is known."""
    probabilities = {
        f"{name} {_NAMES[model]}": probability
        for name, entry in comparison.methods.items()
        for model in MODELS
        if (probability := entry.of(model).harm_probability) is not None
    }
    if not probabilities:
        return ""
    names = ", ".join(rejected(probabilities)) or "none"
    return f"worse than alone over clients (paired sign flips, 5 % by Holm): {names}"


def as_csv(comparison: Comparison) -> str:
    """One line per run and model, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = score_names(comparison.metrics)
    writer.writerow(["method", "seed", "model", *names, "bytes", "seconds", "run_dir"])
    for run in comparison.runs:
        for model in MODELS:
            found = [run.of(model)[name] for name in names]
            writer.writerow([run.method, run.seed, model, *found, run.bytes, run.seconds, run.run_dir])
    return text.getvalue()


def as_latex(comparison: Comparison) -> str:
    """A tabular for the package booktabs."""
    header = ["method", "", *_header(comparison)]
    lines = [r"\begin{tabular}{ll" + "r" * (len(header) - 2) + "}", r"\toprule"]
    lines.append(" & ".join(_escape(name) for name in header) + r" \\")
    for method, entry in comparison.methods.items():
        lines.append(r"\midrule")
        for model in MODELS:
            cells = [_escape(cell) for cell in _cells(entry, model, comparison.primary)]
            name = _escape(method) if model == MODELS[0] else ""
            lines.append(" & ".join([name, _LATEX[model], *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_markdown(comparison: Comparison) -> str:
    """One row a method: metric and gain, then worst client, worst tenth and harm of θ̄ / of θ; costs."""
    name = comparison.primary.label
    header = ["method", f"{name} θ̄", "gain", f"{name} θ", "gain", "worst", "decile", "harmed", "MB", "s"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for method, entry in comparison.methods.items():
        both = zip(*(_cells(entry, model, comparison.primary) for model in MODELS), strict=True)
        (received, tuned), (gain, tuned_gain), worst, decile, hurt, (traffic, _), (seconds, _) = both
        pairs = [" / ".join(cell.split(" ±")[0] for cell in pair) for pair in (worst, decile, hurt)]
        cells = [f"`{method}`", received, gain, tuned, tuned_gain, *pairs, traffic, seconds]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", caption(comparison), ""])


def _escape(text: str) -> str:
    for plain, latex in (("_", r"\_"), ("%", r"\%"), (" ± ", r" $\pm$ "), (">", "$>$"), ("–", "--")):
        text = text.replace(plain, latex)
    return text
