"""Runs a sweep's trials to their number, one after another or several at once, and survives being killed."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial

from fedpl.deferred import deferred
from fedpl.sweep import study as search
from fedpl.sweep.check import Trials
from fedpl.sweep.outcome import Outcome
from fedpl.sweep.plan import Sweep
from fedpl.sweep.task import Task

if TYPE_CHECKING:
    from fedpl.runs import prepared
    from fedpl.sweep import trial
else:
    prepared, trial = map(deferred, ("fedpl.runs.prepared", "fedpl.sweep.trial"))


Runner = Callable[[Task, optuna.Study], Outcome]


def tasks(
    study: optuna.Study,
    sweep: Sweep,
    folder: Path,
    number: int,
    seed: int,
    trials: Trials,
) -> Iterator[Task]:
    """Trials to run: those that were interrupted, then new ones up to the number or the target.

    Args:
        study: The study.
        sweep: The sweep.
        folder: Its directory.
        number: How many there shall be in all.
        seed: Seed of the search.
        trials: What all share.
    """

    def task(trial: FrozenTrial) -> Task:
        return Task(sweep, folder, trial.number, search.values(trial, sweep), trials)

    yield from [task(search.drawn(study, sweep, seed, trial.number)) for trial in search.running(study)]
    if sweep.method == "grid":
        search.enqueue_grid(study, sweep, number)
    while search.begun(study) < number and not _target_reached(study, sweep):
        yield task(search.ask(study, sweep, seed))


def _target_reached(study: optuna.Study, sweep: Sweep) -> bool:
    return any(trial.value is not None and sweep.reached(trial.value) for trial in study.trials)


def run_here(
    study: optuna.Study, work: Iterator[Task], runner: Runner, done: Callable[[Task, Outcome], None]
) -> None:
    """Run tasks in this process, one after another."""
    for task in work:
        _record(study, task, runner(task, study), done)


def run_in_processes(
    study: optuna.Study, work: Iterator[Task], jobs: int, done: Callable[[Task, Outcome], None]
) -> None:
    """Run tasks in several processes, each of which keeps its model from trial to trial."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _follow_parent, (os.getpid(),)) as pool:
        pending: dict[Future[Outcome], Task] = {}
        while True:
            while len(pending) < jobs and (task := next(work, None)) is not None:
                pending[pool.submit(_run_in_process, task)] = task
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                _record(study, pending.pop(future), future.result(), done)


def _record(study: optuna.Study, task: Task, outcome: Outcome, done: Callable[[Task, Outcome], None]) -> None:
    notes = {"rounds": outcome.rounds, "seconds": outcome.seconds, "message": outcome.message}
    search.tell(study, task.number, outcome.state, outcome.value, notes)
    done(task, outcome)


def _follow_parent(parent: int) -> None:
    """End this process when the sweep's is gone: an orphan would disturb its trial's repetition."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def _workshop() -> Any:
    """This process's store of model and data."""
    return prepared.Workshop()


def _run_in_process(task: Task) -> Outcome:
    return train(task, search.reopen(task.folder, task.sweep))


def train(task: Task, study: optuna.Study) -> Outcome:
    """Run a trial as an ordinary run in this process."""
    judge = search.Pruner(study, task.number)
    return trial.run_trial(task, judge, _workshop())
