"""One call of a sweep: opens its directory, runs what is missing, writes the report."""

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from fedpl.config import with_changes
from fedpl.files import held
from fedpl.sweep import drive
from fedpl.sweep.check import Trials, spelled
from fedpl.sweep.outcome import Outcome
from fedpl.sweep.plan import Sweep
from fedpl.sweep.replayed import ReplayRunner
from fedpl.sweep.report import short, write_report
from fedpl.sweep.study import begun, open_study
from fedpl.sweep.task import Task


def run_sweep(
    sweep: Sweep,
    settings: Trials,
    overrides: list[str],
    trials: int,
    jobs: int,
    seed: int,
    out: Path,
    replay: Path | None,
    console: Console,
) -> dict[str, Any]:
    """Bring a sweep to its number of trials and say what it found.

    Args:
        sweep: The sweep, checked.
        settings: What all trials share.
        overrides: The command line's words for all trials, by which the same sweep is known again.
        trials: How many trials in all.
        jobs: How many at the same time.
        seed: Seed of what is tried.
        out: The sweep's directory.
        replay: Run directory whose task vectors are aggregated again; None: trials train.
        console: Where to print.

    Returns:
        What ``sweep.json`` holds.

    Raises:
        UserError: If `out` belongs to another sweep, or another process works on it.
    """
    if os.environ.pop("WANDB_RUN_ID", None) is not None:
        console.print("WANDB_RUN_ID is left aside: each trial is a W&B run of its own", highlight=False)
    out.mkdir(parents=True, exist_ok=True)
    plan = {
        "sweep": repr(sweep),
        "settings": overrides,
        "search_seed": seed,
        "replay": None if replay is None else str(replay),
    }

    def done(task: Task, outcome: Outcome) -> None:
        console.print(trial_line(task, outcome, trials), highlight=False, soft_wrap=True, markup=False)

    def best_yaml(values: dict[str, Any]) -> str:
        return with_changes(settings.alone, spelled(values)).to_yaml()

    with held(out):
        study = open_study(out, sweep, plan)
        if begun(study):
            text = f"{out}: going on, {begun(study)} trials were begun before"
            console.print(text, highlight=False, markup=False)
        work = drive.tasks(study, sweep, out, trials, seed, settings)
        if replay is not None:
            drive.run_here(study, work, ReplayRunner(replay), done)
        elif jobs == 1:
            drive.run_here(study, work, drive.train, done)
        else:
            drive.run_in_processes(study, work, jobs, done)
        return write_report(study, sweep, out, best_yaml, settings.common.tracking.wandb, console)


def trial_line(task: Task, outcome: Outcome, trials: int) -> str:
    """A finished trial in one line."""
    values = ", ".join(f"{name} {short(value)}" for name, value in task.values.items())
    end = f"cut short after round {outcome.rounds}" if outcome.state == "pruned" else outcome.state
    line = f"trial {task.number} of {trials}: {short(outcome.value)}  {values}  ({end}) {outcome.message}"
    return line.rstrip()
