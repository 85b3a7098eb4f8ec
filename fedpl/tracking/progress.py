"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from fedpl.rounds.executor import ClientUpdate


class Display:
    """Progress over methods, rounds and clients.

    Args:
        console: Where to print.
        enabled: Whether to show progress at all; results are printed in any case.
    """

    def __init__(self, console: Console, enabled: bool) -> None:
        self.console = console
        self.enabled = enabled
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        live = enabled and console.is_terminal
        self._live = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not live
        )
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
        self._live.reset(self._clients, description="clients", total=clients, visible=True)

    def client(self, round: int, update: ClientUpdate) -> None:
        """A client has reported."""
        self._live.advance(self._clients)

    def round(self, record: dict[str, Any], rounds: int) -> None:
        """A round is done."""
        self._live.advance(self._rounds)
        self._live.reset(self._clients)
        if self.enabled:
            self.line(round_line(record, rounds))

    def line(self, text: str) -> None:
        """Print a line above the display."""
        self.console.print(text, highlight=False, soft_wrap=True)


def round_line(record: dict[str, Any], rounds: int) -> str:
    """One line about a round."""
    parts = [f"{record['method']}  round {record['round']}/{rounds}  loss {_number(record['train_loss'])}"]
    if record["participants"] < len(record["clients"]["id"]):
        parts.append(f"{record['participants']} of {len(record['clients']['id'])} clients")
    if "validation" in record:
        for model in ("aggregated", "tuned"):
            values = record["validation"][model]
            mean, worst = values["mean"]["accuracy"], values["worst"]["accuracy"]
            parts.append(f"{model} {100 * mean:.1f} (worst {100 * worst:.1f})")
    seconds = record["seconds"]
    if "epsilon" in record:
        parts.append(f"ε {_number(record['epsilon'])}")
    times = f"train {seconds['train']:.1f} s, aggregate {1000 * seconds['aggregate']:.0f} ms"
    return "  ".join([*parts, times])


def closing_table(summary: dict[str, Any]) -> Table:
    """Test accuracy per client and over clients: baselines, the method before and after local training."""
    table = Table(title=f"Test accuracy, %, after {summary['rounds']} rounds")
    table.add_column("client")
    method = summary["method"]
    names = {"local": "local only", "fedavg": "federated average"}
    columns = [(names.get(name, name), entry, "aggregated") for name, entry in summary["baselines"].items()]
    columns += [(f"{method} {model}", summary, model) for model in ("aggregated", "tuned")]
    columns += [("majority class", summary, "majority")]
    for name, _, _ in columns:
        table.add_column(name, justify="right")
    for client in summary["clients"]:
        table.add_row(client, *(_percent(entry["clients"][client][model]) for _, entry, model in columns))
    table.add_section()
    for statistic in ("mean", "std", "worst", "bottom_decile"):
        values = [_percent(entry[statistic][model]) for _, entry, model in columns]
        table.add_row(statistic.replace("_", " "), *values, style="bold" if statistic == "mean" else None)
    macro_f1 = [_percent(entry["mean"][model], "macro_f1") for _, entry, model in columns]
    table.add_row("mean macro-F1", *macro_f1)
    return table


def _percent(scores: dict[str, float] | None, name: str = "accuracy") -> str:
    """A score, or a dash for a client that took no part in the last round and has no tuned model."""
    return "–" if scores is None else f"{100 * scores[name]:.1f}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3f}"
