"""The table of a comparison: methods over seeds."""

import math

from fedpl.page.tables import ALL, Cell, Table, number
from fedpl.records.comparison import Comparison, MethodEntry, Spread
from fedpl.records.results import Model
from fedpl.records.scores import Metric


def methods(comparison: Comparison) -> Table:
    """A row for each model of a method: means over seeds, gain, interval, rank, harm, costs."""
    metric = comparison.primary
    titles = ("method", "model", f"mean {metric.title}", "gain over local", "95 % of the mean gain")
    costs = ("rank", "worst client", "worst tenth", "harmed", "MB", "s")
    rows = tuple(
        (Cell(name), Cell(ALL[model]), *_cells(entry, model, metric))
        for name, entry in comparison.methods.items()
        for model in comparison.models
    )
    return Table(titles + costs, rows)


def title(comparison: Comparison) -> str:
    """What the table is of."""
    seeds = comparison.seeds
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    return f"Test scores after {comparison.rounds} rounds, {over}"


def _cells(entry: MethodEntry, model: Model, metric: Metric) -> tuple[Cell, ...]:
    found = entry.of(model)
    ends = [metric.shown(end, "+") for end in found.interval or ()]
    return (
        _spread(found.scores[metric.name], metric),
        _spread(found.gain, metric, "+"),
        Cell(f"{ends[0]} to {ends[1]}" if ends else "–"),
        number(found.rank),
        _spread(found.scores["worst"], metric),
        _spread(found.scores["bottom_decile"], metric),
        number(None if found.harmed is None else len(found.harmed)),
        number(1e-6 * entry.bytes.mean),
        number(entry.seconds.mean),
    )


def _spread(value: Spread | None, metric: Metric, sign: str = "") -> Cell:
    if value is None or math.isnan(value.mean):
        return Cell("–")
    deviation = "" if value.sd is None else f" ± {metric.shown(value.sd)}"
    return Cell(metric.shown(value.mean, sign) + deviation, value.mean)
