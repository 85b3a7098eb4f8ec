"""A comparison as a LaTeX table: caption with settings, best values in bold."""

import math
from collections.abc import Sequence

from fedpl.compare.statistics import MODELS
from fedpl.compare.tables import asked, caption, cell, title
from fedpl.records.comparison import Comparison, MethodEntry

_MODELS = {"aggregated": r"$\bar\theta$", "tuned": r"$\theta$", "chosen": "chosen"}
_PLAIN = (
    ("\\", r"\textbackslash "),
    *((character, rf"\{character}") for character in "_%&#{}"),
    ("~", r"\textasciitilde "),
    ("^", r"\textasciicircum "),
    ("$", r"\$"),
    (" ± ", r" $\pm$ "),
    (">", "$>$"),
    ("<", "$<$"),
    ("–", "--"),
    ("θ̄", _MODELS["aggregated"]),
    ("θ", _MODELS["tuned"]),
)


def as_latex(comparison: Comparison, about: str = "", columns: Sequence[str] = ()) -> str:
    """A table for the package booktabs; what is best in a column among a model's rows is bold.

    Args:
        comparison: What was found.
        about: What was run, for the caption.
        columns: Names of columns, see `fedpl.compare.columns.known`; none: the usual ones.
    """
    columns = asked(comparison, columns)
    seeds = comparison.seeds
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    head = f"Test {comparison.primary.title}, after {comparison.rounds} rounds, {over}"
    told = [
        head,
        *([about] if about else []),
        _sentence(caption(comparison, columns)),
        "Best values are bold",
    ]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape('. '.join(told))}.}}",
        r"\label{tab:comparison}",
        r"\begin{tabular}{ll" + "r" * len(columns) + "}",
        r"\toprule",
        " & ".join(_escape(name) for name in ("method", "", *(title(c, comparison) for c in columns)))
        + r" \\",
    ]
    best = {
        (model, column): _best(comparison, model, column) for model in comparison.models for column in columns
    }
    for method, entry in comparison.methods.items():
        lines.append(r"\midrule")
        for model in comparison.models:
            cells = []
            for column in columns:
                text = _escape(cell(comparison, entry, model, column))
                value = _value(comparison, entry, model, column)
                bold = value is not None and value == best[model, column]
                cells.append(rf"\textbf{{{text}}}" if bold else text)
            name = _escape(method) if model == MODELS[0] else ""
            lines.append(" & ".join([name, _MODELS[model], *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _value(comparison: Comparison, entry: MethodEntry, model: str, column: str) -> float | None:
    """What is compared in a column, as it is shown: more is better; None where nothing is."""
    found, metric = entry.of(model), comparison.primary
    if column == "rank":
        return None if found.rank is None else -round(found.rank, 2)
    if column == "harmed":
        return None if found.harmed is None else -float(len(found.harmed))
    if column == "gain":
        return None if found.gain is None else _rounded(metric.shown(found.gain.mean))
    metric = next((one for one in comparison.metrics if one.name == column), metric)
    value = found.scores.get({"decile": "bottom_decile"}.get(column, column))
    return None if value is None else _rounded(metric.shown(value.mean), metric.sign)


def _rounded(shown: str, sign: int = 1) -> float | None:
    return None if shown == "–" else sign * float(shown)


def _best(comparison: Comparison, model: str, column: str) -> float:
    """The best of a column; of one method, or where all are equal, nothing is."""
    found = [_value(comparison, entry, model, column) for entry in comparison.methods.values()]
    values = [value for value in found if value is not None]
    return max(values) if len(set(values)) > 1 else math.nan


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _escape(text: str) -> str:
    for plain, latex in _PLAIN:
        text = text.replace(plain, latex)
    return text
