"""One run from configuration to run directory: clients, method, baselines, records."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console

from fedpl.conditions import PrivacyConfig
from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.executors.memo import FirstRoundMemo
from fedpl.executors.protocol import Executor
from fedpl.files import write_atomically, writing
from fedpl.interop import borrow
from fedpl.method import Method
from fedpl.records.messages import Census, Deliver
from fedpl.records.results import Attack, MethodResult, Privacy, RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import Federation, RoundResult
from fedpl.runs.folder import RunFolder
from fedpl.runs.prepared import Prepared, prepare, sealed
from fedpl.runs.standing import Clock, Standing, fingerprint
from fedpl.runs.summary import round_record, run_summary
from fedpl.sampling import share_of
from fedpl.server import Aggregator, Local, Uniform
from fedpl.site.privacy import epsilon
from fedpl.tracking.progress import Display, closing_table
from fedpl.tracking.tracker import JsonLines, Tracker
from fedpl.tracking.vectors import store_vectors

BASELINES = {
    "local": Method("local", aggregator=Aggregator(weighting=Local())),
    "fedavg": Method("fedavg", aggregator=Aggregator(weighting=Uniform())),
}


def run(
    config: Config,
    settings: dict[str, Any],
    resolved: str,
    console: Console,
    watchers: Sequence[Tracker] = (),
    resume: Path | None = None,
    prepared: Prepared | None = None,
) -> Path:
    """Run an experiment, or go on with one that was cut off, and return its run directory.

    Everything a user may have got wrong is found before the directory is made or changed.

    Args:
        config: What to run.
        settings: The configuration as plain values, for W&B.
        resolved: The configuration as YAML, for ``config.yaml``.
        console: Where to print.
        watchers: Told of every round after it has been recorded; what they raise ends the run.
        resume: The directory of the run to go on with; None: a new run.
        prepared: The clients, where another run has left them; they must fit `config`.

    Raises:
        UserError: If data, model or run directory are not as configured, or if it cannot be written.
    """
    clock = Clock()
    executor, hostile = prepared or prepare(config)
    census = executor.join()
    folder = RunFolder.create(config, resolved) if resume is None else RunFolder(resume)
    with Display(console, config.tracking.progress) as display:
        main = Method(config.method, config.client.objective, config.aggregator)
        methods = _standings(config, main, executor, census, hostile, folder, clock, display)
        method = methods.pop(main.name)
        folder.cut_metrics(method.rounds_done)
        if method.rounds_done < config.rounds:
            folder.reopen()
        if resume is not None:
            write_atomically(folder.path / "config.yaml", resolved.encode())
        trackers = [*_trackers(config, folder, settings, census), *watchers]
        size = f"{len(census.members)} clients, {census.layout.size:,} trainable parameters each"
        display.line(f"fedpl: {config.method} on {census.place}: {size}")
        if resume is not None:
            display.line(f"fedpl: {folder.path} goes on after round {method.rounds_done}")
        asked = share_of(census.clients, config.participation)
        display.begin(main.name, config.rounds, asked, method.rounds_done)
        found = method.finish(_heard(config, census, folder, trackers, display))
        _deliver(method, folder)
        baselines: dict[str, MethodResult] = {}
        for name, baseline in methods.items():
            display.begin(name, config.rounds, asked, baseline.rounds_done)

            def shown(result: RoundResult, name: str = name) -> None:
                display.round(round_record(name, census.clients, result, census.metrics), config.rounds)

            baselines[name] = baseline.finish(shown)
            baseline.folder.checkpoints.prune(1)

    records = folder.records()
    summary = run_summary(config.method, config.seed, census, found, baselines, records, clock())
    summary = _with_conditions(summary, config, hostile, records[-1])
    summary.write(folder.path)
    for tracker in trackers:
        tracker.finish(summary)
    if config.tracking.plots:
        from fedpl.pictures.plots import draw_run

        with writing(folder.path / "plots"):
            draw_run(folder.path)
    console.print(closing_table(summary))
    places = {"run directory": "", "adapters": "adapters"}
    places |= {"personal adapters": "personal"} if (folder.path / "personal").exists() else {}
    places |= {"pictures": "plots"} if config.tracking.plots else {}
    for what, where in places.items():
        console.print(f"{what}: {folder.path / where}", highlight=False, soft_wrap=True)
    return folder.path


def _standings(
    config: Config,
    main: Method,
    executor: Executor,
    census: Census,
    hostile: frozenset[str],
    folder: RunFolder,
    clock: Clock,
    display: Display,
) -> dict[str, Standing]:
    """The method and the baselines, under the same conditions, wherever they stand."""
    origin = fingerprint(census)
    baselines = [BASELINES[name] for name in config.baselines]
    shared = FirstRoundMemo(executor, sealed(config)) if baselines else executor
    honest = frozenset(census.clients) - hostile if hostile else None
    away = config.participation.fraction < 1 or config.faults.lost > 0
    found = {}
    for method in (main, *baselines):
        where = folder.method() if method is main else folder.baseline(method.name)
        federation = Federation(
            method,
            shared,
            config.seed,
            config.participation,
            config.evaluation.every if method is main else 0,
            where.path / "memory",
            display.client,
        )
        found[method.name] = Standing(federation, config.rounds, where, origin, clock, honest, away)
    return found


def _heard(
    config: Config, census: Census, folder: RunFolder, trackers: Sequence[Tracker], display: Display
) -> Callable[[RoundResult], None]:
    """What is done with every round of the method."""

    def heard(result: RoundResult) -> None:
        spent = _epsilon(config.privacy, result)
        record = round_record(config.method, census.clients, result, census.metrics, spent)
        for tracker in trackers:
            tracker.round(record, result)
        if config.store_vectors:
            target = folder.sub("vectors")
            store_vectors(target, result.round, _used_vectors(result), config.store_vectors)
        display.round(record, config.rounds)

    return heard


def _deliver(method: Standing, folder: RunFolder) -> None:
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


def _epsilon(privacy: PrivacyConfig, result: RoundResult) -> float | None:
    """ε of the client that has sent most task vectors; None without privacy."""
    return None if privacy.clip is None else epsilon(privacy, int(result.ledger.sent.max()))


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


def _trackers(
    config: Config, folder: RunFolder, settings: Mapping[str, Any], census: Census
) -> list[Tracker]:
    trackers: list[Tracker] = [JsonLines(folder.metrics)]
    from fedpl.tracking.weights_and_biases import WandbTracker, choose_mode

    if choose_mode(config.tracking.wandb) != "disabled":
        id = folder.wandb_id()
        trackers.append(WandbTracker(config.tracking.wandb, folder.path, dict(settings), census.clients, id))
    return trackers


def _used_vectors(result: RoundResult) -> Float[np.ndarray, "clients params"]:
    """The task vectors of a round; NaN for clients that had no part in it, which every rule leaves out."""
    vectors = result.vectors.cpu().numpy()
    if not (away := result.ledger.age != 0).any():
        return vectors
    return np.where(away[:, None], np.float32(np.nan), vectors)
