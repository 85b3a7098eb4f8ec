"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

import math
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fedpl.data.wording import counted, readable
from fedpl.records.messages import Report
from fedpl.records.plain import LARGEST
from fedpl.records.results import Baseline, Model, RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.records.scores import Summary

_FIRST = "clients, the first round compiles"


class Display:
    """Progress over methods, rounds and clients.

    Args:
        console: Where to print.
        enabled: Whether to show progress at all; results are printed in any case.
    """

    def __init__(self, console: Console, enabled: bool) -> None:
        self.console = console
        self.enabled = enabled
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        live = enabled and (console.is_terminal or (console.is_jupyter and _has_widgets()))
        self._live = Progress(
            *columns,
            TimeElapsedColumn(),
            TextColumn("left", justify="right"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not live,
        )
        self._steps, self._told = 0, False
        self._rounds = self._live.add_task("rounds", visible=False)
        self._clients = self._live.add_task("clients", visible=False)

    def __enter__(self) -> "Display":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, method: str, rounds: int, clients: int, done: int = 0) -> None:
        """A method starts, or goes on after so many rounds."""
        self._live.reset(
            self._rounds, description=f"{method}: rounds", total=rounds, completed=done, visible=True
        )
        self._live.reset(self._clients, description=_FIRST, total=clients, visible=True)
        if self.enabled and not self._told and done < rounds:
            self._told = True
            self.line(f"fedpl: {method} trains; round {done + 1} also compiles what later rounds use again")

    def client(self, round: int, report: Report) -> None:
        """A client has reported."""
        self._steps += report.steps
        self._live.update(self._clients, advance=1, description=f"clients, {self._steps:,} steps so far")

    def round(self, record: RoundRecord, rounds: int) -> None:
        """A round is done."""
        self._live.advance(self._rounds)
        self._live.reset(self._clients)
        if self.enabled:
            self.line(round_line(record, rounds))

    def line(self, text: str) -> None:
        """Print a line above the display."""
        self.console.print(Text(text), soft_wrap=True)  # no markup in names


def _has_widgets() -> bool:
    """Whether a notebook can show something that changes; without, it gets plain lines."""
    return find_spec("ipywidgets") is not None


def round_line(record: RoundRecord, rounds: int) -> str:
    """One line about a round."""
    parts = [f"{record.method}  round {record.round}/{rounds}  loss {_number(record.train_loss)}"]
    if record.participants < len(record.clients.id):
        parts.append(f"{record.participants} of {len(record.clients.id)} clients")
    if record.validation is not None:
        metric = record.metrics[0]
        for model, found in (
            ("aggregated", record.validation.aggregated),
            ("tuned", record.validation.tuned),
        ):
            mean, worst = (metric.shown(scores[metric.name]) for scores in (found.mean, found.worst))
            parts.append(f"{model} {mean} (worst {worst})")
    if record.epsilon is not None:
        parts.append(f"ε {_number(record.epsilon)}")
    seconds = record.seconds
    times = f"train {seconds.train:.1f} s, aggregate {1000 * seconds.aggregate:.0f} ms"
    return "  ".join([*parts, times])


def closing_table(summary: RunSummary) -> Table:
    """Test scores over clients, and of up to 64 each: baselines, the method before and after training."""
    primary, *others = summary.metrics
    table = Table(
        title=f"Test {primary.title}, after {counted(summary.rounds, 'round')}", caption=_counted(summary)
    )
    few = len(summary.clients) <= LARGEST
    names = {"local": "local only", "fedavg": "federated average"}
    columns: list[tuple[str, RunSummary | Baseline, Model]] = [
        (names.get(name, name), baseline, "aggregated") for name, baseline in summary.baselines.items()
    ]
    columns += [(f"{summary.method} aggregated", summary, "aggregated")]
    columns += [(f"{summary.method} tuned", summary, "tuned")]
    if "chosen" in summary.models:
        columns += [("chosen", summary, "chosen")]
    columns += [(summary.floor_name, summary, "majority")]
    first = "client" if few else f"{len(summary.clients):,} clients"
    table.add_column(first, overflow="ellipsis", no_wrap=True)
    for name, _, _ in columns:
        table.add_column(Text(name), justify="right")
    for client in summary.clients if few else ():
        # A dash for a client that took no part in the last round and has no tuned model, or has no test data.
        values = [found.scores_of(client).value(model, primary) for _, found, model in columns]
        table.add_row(Text(readable(client)), *map(primary.shown, values))
    table.add_section()
    for statistic in Summary._fields:
        values = [found.test.value(statistic, model, primary) for _, found, model in columns]
        style = "bold" if statistic == "mean" else None
        table.add_row(statistic.replace("_", " "), *map(primary.shown, values), style=style)
    for metric in others:
        values = [found.test.value("mean", model, metric) for _, found, model in columns]
        table.add_row(f"mean {metric.label}", *map(metric.shown, values))
    return table


def _counted(summary: RunSummary) -> str | None:
    """Over which clients the statistics are, where not over all."""
    scored = sum(client.scores.aggregated is not None for client in summary.clients.values())
    if scored == len(summary.clients):
        return None
    whom = f"the {scored} of {len(summary.clients)} clients with test data"
    return f"Statistics are over {whom}." if scored else "No client has test data: there is nothing to count."


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not finite"
