"""What a sweep found: a table, the best configuration, the trials as JSON and CSV, pictures."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpl.config import WandbConfig
from fedpl.files import write_atomically, write_json
from fedpl.sweep import study as search
from fedpl.sweep.plan import Sweep
from fedpl.sweep.plots import importance_bars, parallel_coordinates
from fedpl.terminal import print_table
from fedpl.tracking.gathered import gather

_SHOWN = 30
_STATES = {"COMPLETE": "complete", "PRUNED": "cut short", "FAIL": "failed", "RUNNING": "running"}


def trial_entry(trial: FrozenTrial, sweep: Sweep) -> dict[str, Any]:
    """A trial as plain values; one that was cut short shows the score at which it was cut."""
    last = trial.intermediate_values.get(trial.last_step) if trial.last_step is not None else None
    notes = trial.user_attrs
    return {
        "number": trial.number,
        "state": _STATES[trial.state.name],
        "parameters": search.values(trial, sweep),
        "value": trial.value if trial.value is not None else last,
        "rounds": notes.get("rounds"),
        "seconds": notes.get("seconds"),
        "message": notes.get("message", ""),
    }


def ranked(entries: list[dict[str, Any]], sweep: Sweep) -> list[dict[str, Any]]:
    """Complete trials from the best on, then the others by number."""
    sign = -1 if sweep.goal == "maximize" else 1

    def place(entry: dict[str, Any]) -> tuple[bool, float, int]:
        complete = entry["state"] == "complete"
        return (not complete, sign * entry["value"] if complete else 0.0, entry["number"])

    return sorted(entries, key=place)


def write_report(
    study: optuna.Study,
    sweep: Sweep,
    folder: Path,
    best_yaml: Callable[[dict[str, Any]], str],
    wandb: WandbConfig,
    console: Console,
) -> dict[str, Any]:
    """Write sweep.json, trials.csv, best.yaml and the pictures, and print the table.

    Args:
        study: The study.
        sweep: The sweep.
        folder: Its directory.
        best_yaml: The configuration of a run outside the sweep with given values.
        wandb: As of the trials: the sweep is logged beside them.
        console: Where to print.

    Returns:
        What ``sweep.json`` holds.
    """
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    entries = ranked([trial_entry(trial, sweep) for trial in finished], sweep)
    importance = search.importances(study, sweep)
    content = {
        "name": sweep.name,
        "method": sweep.method,
        "metric": {"name": sweep.metric, "goal": sweep.goal},
        "importance": importance,
        "trials": entries,
    }
    write_json(folder / "sweep.json", content)
    write_atomically(folder / "trials.csv", _as_csv(entries, sweep).encode())
    written = ["sweep.json", "trials.csv"]
    best = entries[0] if entries and entries[0]["state"] == "complete" else None
    if best is not None:
        head = f"# {sweep.metric} {best['value']:.6g}: trial {best['number']} of the sweep {sweep.name}\n"
        write_atomically(folder / "best.yaml", (head + best_yaml(best["parameters"])).encode())
        parallel_coordinates(entries, sweep).savefig(folder / "parallel.png", dpi=110)
        written += ["best.yaml", "parallel.png"]
    if importance:
        importance_bars(importance, sweep.metric).savefig(folder / "importance.png", dpi=110)
        written.append("importance.png")
    print_table(console, table(entries, sweep))
    if best is None:
        console.print("no trial was completed")
    console.print(Text(f"sweep: {folder}: {', '.join(written)}"), soft_wrap=True)
    rows = [{"trial": one["number"], **_plain(one), **one["parameters"]} for one in entries]
    numbers = {} if best is None else {"best/trial": best["number"], f"best/{sweep.metric}": best["value"]}
    if there := gather(wandb, "sweep", folder, [folder / name for name in written], rows, numbers):
        console.print(Text(f"Weights & Biases: {there}"), soft_wrap=True)
    return content


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("state", "value", "rounds", "seconds")}


def table(entries: list[dict[str, Any]], sweep: Sweep) -> Table:
    """The best trials, one row each."""
    shown = Table(title=Text(f"{sweep.name}: {sweep.metric}, {sweep.goal}"))
    names = [dimension.name for dimension in sweep.dimensions if dimension.distribution != "constant"]
    shown.add_column("trial", justify="right")
    shown.add_column("value", justify="right")
    for name in briefly(names):
        shown.add_column(name, overflow="fold")
    shown.add_column("rounds", justify="right")
    shown.add_column("s", justify="right")
    ends = ["" if entry["state"] == "complete" else entry["state"] for entry in entries[:_SHOWN]]
    if any(ends):
        shown.add_column("end")
    for entry, end in zip(entries, ends, strict=False):
        cells = [Text(short(entry["parameters"][name])) for name in names]
        seconds = "" if entry["seconds"] is None else f"{entry['seconds']:.1f}"
        own: list[str | Text] = [str(entry["number"]), short(entry["value"]), *cells]
        own += [str(entry["rounds"]), seconds]
        shown.add_row(*own, *([end] if any(ends) else []))
    return shown


def briefly(names: list[str]) -> list[str]:
    """Dotted names by their last parts where these differ."""
    last = [name.rsplit(".", 1)[-1] for name in names]
    return last if len(set(last)) == len(last) else names


def short(value: Any) -> str:
    """A value in few characters."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _as_csv(entries: list[dict[str, Any]], sweep: Sweep) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [dimension.name for dimension in sweep.dimensions]
    writer.writerow(["trial", "state", "value", "rounds", "seconds", *names])
    for entry in sorted(entries, key=lambda entry: entry["number"]):
        own = [entry[key] for key in ("number", "state", "value", "rounds", "seconds")]
        writer.writerow([*own, *(entry["parameters"][name] for name in names)])
    return text.getvalue()
