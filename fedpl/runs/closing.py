"""The end of a run: adapters for the clients, the summary, pictures, the closing table."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from fedpl.conditions import PrivacyConfig
from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.files import writing
from fedpl.interop import borrow
from fedpl.records.choice import FOLDER, OTHERS, Choice
from fedpl.records.messages import Census, Deliver
from fedpl.records.results import Attack, MethodResult, Privacy, RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.holding import together
from fedpl.runs.folder import RunFolder
from fedpl.runs.origin import Origin
from fedpl.runs.standing import Standing
from fedpl.runs.summary import run_summary
from fedpl.site.privacy import epsilon
from fedpl.terminal import print_table
from fedpl.tracking.progress import closing_table
from fedpl.tracking.tracker import Beside, Tracker, beside

if TYPE_CHECKING:
    from fedpl.pictures import plots
else:
    plots = deferred("fedpl.pictures.plots")


def deliver(method: Standing, folder: RunFolder) -> None:
    """Let every client have its last aggregate, for PEFT to load."""
    last = method.folder.checkpoints.latest(room=method.federation.room)
    if last is None:
        raise UserError(f"{method.folder.path} holds no intact state any more")
    federation = method.federation
    like, everybody = federation.census.initial, federation.clients
    residual = None if last.state.residual is None else borrow(last.state.residual, like)
    for clients, rows in together(last.state.models, everybody, range(len(everybody)), like, federation.room):
        federation.executor.tell(
            Deliver(
                folder=str(folder.path),
                clients=clients,
                models=rows,
                objective=federation.method.objective,
                memories=last.memories,
                residual=residual,
                round=last.state.round,
            )
        )


def close(
    config: Config,
    census: Census,
    origin: Origin,
    hostile: frozenset[str],
    found: MethodResult,
    baselines: Mapping[str, MethodResult],
    folder: RunFolder,
    seconds: float,
    trackers: Sequence[Tracker],
    console: Console,
    choices: Mapping[str, Choice] | None = None,
) -> None:
    """Write the summary, draw, say what was found and where it lies, and end the trackers.

    Args:
        config: What was run.
        census: All clients.
        origin: What it was run on and with.
        hostile: Those who attack, in simulations.
        found: The method's result.
        baselines: The same of every baseline.
        folder: The run directory.
        seconds: What the run took.
        trackers: Where the rounds went.
        console: Where to print.
        choices: What answers for each client, where they chose.
    """
    records = folder.records()
    summary = run_summary(config.name, config.seed, census, found, baselines, records, seconds, choices)
    summary = _with_conditions(summary, config, hostile, records[-1], (found, *baselines.values()))
    summary = dataclasses.replace(summary, data=origin.data, versions=origin.versions, begun=origin.begun)
    summary.write(folder.path)
    if config.tracking.plots:
        with beside("the pictures"), writing(folder.path / "plots"):
            plots.draw_run(folder.path)
    print_table(console, closing_table(summary))
    if choices is not None:
        console.print(f"chosen by validation data: {_counted(choices)}", highlight=False)
    if summary.privacy is not None and (total := summary.privacy.epsilon_with_baselines) is not None:
        console.print(f"privacy: with the baselines' task vectors ε is {total:.3g}", highlight=False)
    places = {"run directory": ""}
    places |= {"adapters": "adapters"} if (folder.path / "adapters").exists() else {}
    places |= {"personal adapters": "personal"} if (folder.path / "personal").exists() else {}
    places |= {"chosen": "best"} if (folder.path / FOLDER).exists() else {}
    places |= {"pictures": "plots"} if config.tracking.plots else {}
    for what, where in places.items():
        console.print(Text(f"{what}: {folder.path / where}"), soft_wrap=True)
    for tracker in trackers:
        if isinstance(tracker, Beside) and tracker.where:
            console.print(Text(f"{tracker.what}: {tracker.where}"), soft_wrap=True)
    # Last: what goes elsewhere may take its time, or never come back.
    for tracker in trackers:
        tracker.finish(summary)


def _counted(choices: Mapping[str, Choice]) -> str:
    """How many clients chose what."""
    times = Counter(choice.model for choice in choices.values())
    return ", ".join(f"{name} {times[name]}" for name in ("aggregated", *OTHERS) if times[name])


def _with_conditions(
    summary: RunSummary,
    config: Config,
    hostile: frozenset[str],
    last: RoundRecord,
    methods: Sequence[MethodResult],
) -> RunSummary:
    """The summary with what it says about attacks and privacy, where there are any."""
    faults = config.faults
    if hostile:
        names = tuple(client for client in summary.clients if client in hostile)
        attack = Attack(attack=faults.attack, strength=faults.strength, clients=names)
        summary = dataclasses.replace(summary, hostile=attack)
    if config.privacy.clip is not None:
        privacy = Privacy(
            **dataclasses.asdict(config.privacy),
            epsilon=last.epsilon,
            epsilon_with_baselines=_together(config.privacy, methods),
        )
        summary = dataclasses.replace(summary, privacy=privacy)
    return summary


def _together(privacy: PrivacyConfig, methods: Sequence[MethodResult]) -> float | None:
    """ε of what the method and the baselines released; None where only one of them did."""
    sent = [result.sent for result in methods if result.sent is not None]
    if len(sent) < 2:
        return None
    return epsilon(privacy, max(sum(own[client] for own in sent) for client in sent[0]))
