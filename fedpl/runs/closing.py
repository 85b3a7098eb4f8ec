"""The end of a run: adapters for the clients, the summary, pictures, the closing table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.files import writing
from fedpl.interop import borrow
from fedpl.records.messages import Census, Deliver
from fedpl.records.results import Attack, MethodResult, Privacy, RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.runs.folder import RunFolder
from fedpl.runs.standing import Standing
from fedpl.runs.summary import run_summary
from fedpl.tracking.progress import closing_table
from fedpl.tracking.tracker import Beside, Tracker, beside

if TYPE_CHECKING:
    from fedpl.pictures import plots
else:
    plots = deferred("fedpl.pictures.plots")


def deliver(method: Standing, folder: RunFolder) -> None:
    """Let every client have its last aggregate, for PEFT to load."""
    last = method.folder.checkpoints.latest()
    if last is None:
        raise UserError(f"{method.folder.path} holds no intact state any more")
    federation = method.federation
    residual = None if last.state.residual is None else borrow(last.state.residual)
    models, objective = borrow(last.state.personal), federation.method.objective
    federation.executor.tell(
        Deliver(str(folder.path), federation.clients, models, objective, last.memories, residual)
    )


def close(
    config: Config,
    census: Census,
    hostile: frozenset[str],
    found: MethodResult,
    baselines: Mapping[str, MethodResult],
    folder: RunFolder,
    seconds: float,
    trackers: Sequence[Tracker],
    console: Console,
) -> None:
    """Write the summary, draw, say what was found and where it lies, and end the trackers.

    Args:
        config: What was run.
        census: All clients.
        hostile: Those who attack, in simulations.
        found: The method's result.
        baselines: The same of every baseline.
        folder: The run directory.
        seconds: What the run took.
        trackers: Where the rounds went.
        console: Where to print.
    """
    records = folder.records()
    summary = run_summary(config.name, config.seed, census, found, baselines, records, seconds)
    summary = _with_conditions(summary, config, hostile, records[-1])
    summary.write(folder.path)
    if config.tracking.plots:
        with beside("the pictures"), writing(folder.path / "plots"):
            plots.draw_run(folder.path)
    console.print(closing_table(summary))
    places = {"run directory": "", "adapters": "adapters"}
    places |= {"personal adapters": "personal"} if (folder.path / "personal").exists() else {}
    places |= {"pictures": "plots"} if config.tracking.plots else {}
    for what, where in places.items():
        console.print(f"{what}: {folder.path / where}", highlight=False, soft_wrap=True)
    for tracker in trackers:
        if isinstance(tracker, Beside) and tracker.where:
            console.print(f"{tracker.what}: {tracker.where}", highlight=False, soft_wrap=True)
    # Last: what goes elsewhere may take its time, or never come back.
    for tracker in trackers:
        tracker.finish(summary)


def _with_conditions(
    summary: RunSummary, config: Config, hostile: frozenset[str], last: RoundRecord
) -> RunSummary:
    """The summary with what it says about attacks and privacy, where there are any."""
    faults = config.faults
    if hostile:
        names = tuple(client for client in summary.clients if client in hostile)
        attack = Attack(attack=faults.attack, strength=faults.strength, clients=names)
        summary = dataclasses.replace(summary, hostile=attack)
    if config.privacy.clip is not None:
        privacy = Privacy(**dataclasses.asdict(config.privacy), epsilon=last.epsilon)
        summary = dataclasses.replace(summary, privacy=privacy)
    return summary
