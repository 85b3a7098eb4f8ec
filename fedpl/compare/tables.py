"""A comparison as a table for people, as Markdown and as CSV; what columns there are."""

import csv
import io
import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fedpl.compare.columns import DEFAULT
from fedpl.compare.paired import rejected
from fedpl.compare.statistics import MODELS, TAILS, score_names
from fedpl.records.comparison import Comparison, MethodEntry, Spread
from fedpl.records.scores import Metric

NAMES = {"aggregated": "θ̄", "tuned": "θ", "chosen": "chosen"}


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


def title(column: str, comparison: Comparison) -> str:
    """A column's head."""
    return next((one.label for one in comparison.metrics if one.name == column), column)


def cell(comparison: Comparison, entry: MethodEntry, model: str, column: str) -> str:
    """What stands in a column for one of a method's models; its costs stand with the first."""
    found, metric = entry.of(model), comparison.primary
    if column in ("MB", "s"):
        cost = f"{1e-6 * entry.bytes.mean:.1f}" if column == "MB" else f"{entry.seconds.mean:.0f}"
        return cost if model == MODELS[0] else ""
    if column == "gain":
        return spread(found.gain, metric, "+")
    if column == "interval":
        ends = [metric.shown(end, "+") for end in found.interval or ()]
        return f"[{', '.join(ends)}]" if ends else "–"
    if column == "rank":
        return "–" if found.rank is None else f"{found.rank:.2f}"
    if column == "harmed":
        return "–" if found.harmed is None else str(len(found.harmed))
    metric = next((one for one in comparison.metrics if one.name == column), metric)
    return spread(found.scores[{"decile": TAILS[1]}.get(column, column)], metric)


def asked(comparison: Comparison, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns as named; none named: the usual ones."""
    return tuple(columns) or (comparison.primary.name, *DEFAULT)


def rich_table(comparison: Comparison, columns: Sequence[str] = ()) -> Table:
    """Rows of a method: the aggregate θ̄ as received, θ after local training, what guards chose."""
    seeds, columns = comparison.seeds, asked(comparison, columns)
    over = f"mean±sd over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    head = f"Test {comparison.primary.title}, after {comparison.rounds} rounds, {over}"
    table = Table(title=head, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("method", no_wrap=True)
    table.add_column("")
    for column in columns:
        table.add_column(title(column, comparison), justify="right", no_wrap=True)
    for method, entry in comparison.methods.items():
        for model in comparison.models:
            cells = [cell(comparison, entry, model, column).replace(" ± ", "±") for column in columns]
            table.add_row(Text(method if model == MODELS[0] else ""), NAMES[model], *map(Text, cells))
        table.add_section()
    return table


def caption(comparison: Comparison, columns: Sequence[str] = ()) -> str:
    """What the columns mean."""
    metric, columns = comparison.primary, asked(comparison, columns)
    margin = f"{metric.factor * comparison.harm_margin:g}{' points' if metric.unit == '%' else ''}"
    side, tenth = ("below", "lowest") if metric.higher else ("above", "highest")
    harm = (
        f"harmed: clients that on average over seeds lie more than {margin} {side} local-only training"
        if "local" in comparison.methods
        else "harmed: unknown; put local among the methods"
    )
    if told := _tested(comparison):
        harm += f"; {told}"
    meanings = {
        "gain": "gain: over local-only training, seed by seed",
        "interval": "interval: 95 % for the mean gain, over clients",
        "rank": "rank: mean over clients and seeds, 1 is best",
        "worst": "worst: the worst client",
        "decile": f"decile: the {tenth} tenth of the clients",
        "harmed": harm,
        "MB": "MB: traffic both ways",
        "s": "s: training, aggregation and scoring",
    }
    models = "θ̄: the aggregate as received, θ: after local training"
    if "chosen" in comparison.models:
        models += ", chosen: which of them, or half of both, a client chose by its validation data"
    return "; ".join([models, *(words for name, words in meanings.items() if name in columns)])


def _tested(comparison: Comparison) -> str:
    """Which models leave clients worse than training alone, by the paired test; empty where none is known."""
    probabilities = {
        f"{name} {NAMES[model]}": probability
        for name, entry in comparison.methods.items()
        for model in comparison.models
        if (probability := entry.of(model).harm_probability) is not None
    }
    if not probabilities:
        return ""
    names = ", ".join(rejected(probabilities)) or "none"
    return f"worse than alone over clients (paired sign flips, 5 % by Holm): {names}"


def pairs_csv(comparison: Comparison) -> str:
    """One line for every two methods and model, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("model", "first", "second", "difference", "low", "high", "probability", "adjusted", "clients")
    writer.writerow(names)
    for pair in comparison.pairs or ():
        low, high = pair.interval or ("", "")
        own = [pair.model, pair.first, pair.second, pair.difference, low, high]
        writer.writerow([*own, pair.probability, pair.adjusted, pair.clients])
    return text.getvalue()


def as_csv(comparison: Comparison) -> str:
    """One line per run and model, with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = score_names(comparison.metrics)
    writer.writerow(["method", "seed", "model", *names, "bytes", "seconds", "run_dir"])
    for run in comparison.runs:
        for model in comparison.models:
            found = [run.of(model)[name] for name in names]
            writer.writerow([run.method, run.seed, model, *found, run.bytes, run.seconds, run.run_dir])
    return text.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """One row a method: metric and gain, then worst client, worst tenth and harm of θ̄ / of θ (/ of what was
    chosen); costs."""
    metric, models = comparison.primary, comparison.models
    gains = [title for model in models for title in (f"{metric.label} {NAMES[model]}", "gain")]
    header = ["method", *gains, "worst", "decile", "harmed", "MB", "s"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for method, entry in comparison.methods.items():
        own = {
            column: [cell(comparison, entry, model, column) for model in models]
            for column in asked(comparison, ())
        }
        each = [text for pair in zip(own[metric.name], own["gain"], strict=True) for text in pair]
        shared = [
            " / ".join(text.split(" ±")[0] for text in own[name]) for name in ("worst", "decile", "harmed")
        ]
        cells = [f"`{method}`", *each, *shared, own["MB"][0], own["s"][0]]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", caption(comparison), ""])
