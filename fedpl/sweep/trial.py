"""One trial: an ordinary run that tells its validation score every round and may be cut short."""

import shutil
import sys
import time
from dataclasses import replace

from rich.console import Console

from fedpl.errors import UserError
from fedpl.records.plain import flat
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Workshop
from fedpl.sweep.outcome import Judge, Outcome
from fedpl.sweep.task import Task


class Cut(Exception):
    """A trial was cut short."""


class Watcher:
    """Follows a run's metric and stops the run when the judge says so.

    Args:
        metric: Name of the metric, as in W&B.
        rounds: Rounds of the run; after the last there is nothing left to cut.
        judge: Who decides.

    Attributes:
        value: The last value of the metric.
        done: Rounds done.
    """

    def __init__(self, metric: str, rounds: int, judge: Judge) -> None:
        self.metric, self.rounds, self.judge = metric, rounds, judge
        self.value: float | None = None
        self.done = 0

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        self.done = record.round
        self.value = flat(record.to_json()).get(self.metric)
        if self.value is None:
            return
        self.judge.report(self.done, self.value)
        if self.done < self.rounds and self.judge.cut():
            raise Cut

    def finish(self, summary: RunSummary) -> None:
        """The run's own records say the rest."""


def run_trial(task: Task, judge: Judge, workshop: Workshop) -> Outcome:
    """Run a trial in this process; what an interrupted attempt left of it is removed.

    Settings that do not fit together, found only now because they were drawn, make a failed trial; anything
    else that goes wrong is raised.

    Args:
        task: The trial.
        judge: Who decides whether it goes on.
        workshop: Keeps model and data for the next trial.
    """
    begin = time.perf_counter()
    shutil.rmtree(task.run_dir, ignore_errors=True)
    metric = task.sweep.metric
    watcher = Watcher(metric, 0, judge)
    state, message = "complete", ""
    try:
        config = replace(task.trials.config(task.values), run_dir=str(task.run_dir))
        watcher.rounds = config.rounds
        run(config, Console(quiet=True), watchers=[watcher], prepared=workshop.prepare(config))
    except Cut:
        state = "pruned"
    except UserError as error:
        state, message = "failed", str(error)
    finally:
        _end_wandb_run(cut=state == "pruned")
    if state == "complete" and watcher.value is None:
        state, message = "failed", f"{metric} is not finite, or was not recorded"
    seconds = time.perf_counter() - begin
    return Outcome(state, watcher.value, watcher.done, seconds, message)


def _end_wandb_run(cut: bool) -> None:
    """End the W&B run of a trial that did not come to its own end, or the next would go on in it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.run.summary["cut_short"] = cut
        wandb.finish()
