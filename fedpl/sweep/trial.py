"""One trial: an ordinary run that tells its validation score every round and may be cut short."""

import logging
import shutil
import sys
import time

from rich.console import Console

from fedpl.config import with_changes
from fedpl.errors import UserError
from fedpl.records.plain import flat
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Workshop
from fedpl.sweep.outcome import Judge, Outcome
from fedpl.sweep.task import Task
from fedpl.tracking.tracker import beside

_log = logging.getLogger(__name__)


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

    Whatever goes wrong makes a failed trial, with its error in the log: the next one may do better. Settings
    that do not fit together are found only now, because they were drawn.

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
        config = task.trials.config(task.values)
        name = config.tracking.wandb.name or task.run_dir.name  # WANDB_NAME would be the name of all
        config = with_changes(config, {"run_dir": str(task.run_dir), "tracking.wandb.name": name})
        watcher.rounds = config.rounds
        run(config, Console(quiet=True), watchers=[watcher], prepared=workshop.prepare(config))
    except Cut:
        state = "pruned"
    except UserError as error:
        state, message = "failed", str(error)
    except Exception as error:
        _log.exception("trial %d failed", task.number)
        state, message = "failed", f"{type(error).__name__}: {error}"
    finally:
        interrupted = sys.exception() is not None
        _end_wandb_run(state == "pruned", failed=interrupted or state == "failed")
    if state == "complete" and watcher.value is None:
        state, message = "failed", f"{metric} is not finite, or was not recorded"
    seconds = time.perf_counter() - begin
    return Outcome(state, watcher.value, watcher.done, seconds, message)


def _end_wandb_run(cut: bool, failed: bool) -> None:
    """End the W&B run of a trial that did not come to its own end, or the next would go on in it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.run.summary["cut_short"] = cut
        with beside("the end of the trial's W&B run"):
            wandb.finish(exit_code=int(failed))
