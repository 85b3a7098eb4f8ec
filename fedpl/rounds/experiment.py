"""One run from configuration to run directory: data, model, method, baselines, records."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.console import Console

from fedpl.conditions import PrivacyConfig
from fedpl.config import Config
from fedpl.data import FederatedData
from fedpl.files import write_atomically, write_json, writing
from fedpl.objectives import Plain
from fedpl.rounds.adapters import save_adapters
from fedpl.rounds.first_round import FirstRoundMemo
from fedpl.rounds.folder import RunFolder
from fedpl.rounds.loop import Federation, RoundResult
from fedpl.rounds.prepared import Prepared, prepare
from fedpl.rounds.privacy import epsilon
from fedpl.rounds.sampling import hostile_rows, share_of
from fedpl.rounds.standing import Clock, Standing, fingerprint
from fedpl.server import Aggregator, Local, Uniform
from fedpl.tracking.progress import Display, closing_table
from fedpl.tracking.records import round_record, run_summary
from fedpl.tracking.tracker import JsonLines, Tracker
from fedpl.tracking.vectors import store_vectors

BASELINES = {"local": Aggregator(weighting=Local()), "fedavg": Aggregator(weighting=Uniform())}


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
        prepared: Clients, model and executor, where another run has left them; they must fit `config`.

    Raises:
        UserError: If data, model or run directory are not as configured, or if it cannot be written.
    """
    clock = Clock()
    prepared = prepared or prepare(config)
    hardware, data, trainer, executor, initial = prepared
    origin = fingerprint(data, initial)
    hostile = hostile_rows(data.ids, config.faults, config.seed)
    honest = frozenset(id for row, id in enumerate(data.ids) if row not in hostile) if hostile else None
    folder = RunFolder.create(config, resolved) if resume is None else RunFolder(resume)

    with Display(console, config.tracking.progress) as display:
        federation = Federation(
            clients=data.ids,
            layout=trainer.layout,
            aggregator=config.aggregator,
            executor=FirstRoundMemo(executor) if config.baselines else executor,
            initial=initial,
            evaluate_every=config.evaluation.every,
            on_update=display.client,
            seed=config.seed,
            participation=config.participation,
            faults=config.faults,
            privacy=config.privacy,
            objective=config.client.objective,
            true_groups=_true_groups(data),
        )
        method = Standing(federation, config.rounds, folder.method(), origin, clock, honest)
        folder.cut_metrics(method.rounds_done)
        if method.rounds_done < config.rounds:
            folder.reopen()
        if resume is not None:
            write_atomically(folder.path / "config.yaml", resolved.encode())
        trackers = [*_trackers(config, folder, settings, data), *watchers]

        def begin(name: str, standing: Standing) -> None:
            asked = share_of(data.ids, config.participation)
            display.begin(name, config.rounds, asked, standing.rounds_done)

        def heard(result: RoundResult) -> None:
            spent = _epsilon(config.privacy, result)
            record = round_record(config.method, data.ids, result, spent)
            for tracker in trackers:
                tracker.round(record, result)
            if config.store_vectors:
                target = folder.sub("vectors")
                store_vectors(target, result.round, _used_vectors(result), config.store_vectors)
            display.round(record, config.rounds)

        size = f"{len(data.clients)} clients, {trainer.layout.size:,} trainable parameters each"
        display.line(f"fedpl: {config.method} on {hardware.device}, {hardware.precision}: {size}")
        if resume is not None:
            display.line(f"fedpl: {folder.path} goes on after round {method.rounds_done}")
        begin(config.method, method)
        found = method.finish(heard)
        save_adapters(folder, trainer, data.ids, method.folder, config.client.objective)

        baselines: dict[str, Any] = {}
        for name in config.baselines:
            federation = _baseline(method.federation, name)
            baseline = Standing(federation, config.rounds, folder.baseline(name), origin, clock, honest)
            begin(name, baseline)
            baselines[name] = baseline.finish(
                lambda result, name=name: display.round(  # type: ignore[misc]
                    round_record(name, data.ids, result), config.rounds
                )
            )
            baseline.folder.checkpoints.prune(1)

    records = folder.records()
    seconds = {part: sum(r["seconds"][part] for r in records) for part in ("train", "aggregate", "evaluate")}
    seconds["total"] = clock()
    summary = run_summary(config.method, config.seed, data, found, baselines, records, seconds)
    summary |= _conditions(config, data, records[-1])
    write_json(folder.path / "summary.json", summary)
    for tracker in trackers:
        tracker.finish(summary)
    if config.tracking.plots:
        from fedpl.tracking.plots import draw_run

        with writing(folder.path / "plots"):
            draw_run(folder.path)
    console.print(closing_table(summary))
    places = {"run directory": "", "adapters": "adapters"}
    places |= {"personal adapters": "personal"} if (folder.path / "personal").exists() else {}
    places |= {"pictures": "plots"} if config.tracking.plots else {}
    for what, where in places.items():
        console.print(f"{what}: {folder.path / where}", highlight=False, soft_wrap=True)
    return folder.path


def _true_groups(data: FederatedData) -> tuple[str, ...] | None:
    """The clients' groups where the data names all of them."""
    groups = tuple(client.group for client in data.clients)
    return groups if all(groups) else None


def _baseline(federation: Federation, name: str) -> Federation:
    """A baseline under the same conditions; where nothing leaves a client, nothing is hidden or forged."""
    federation = dataclasses.replace(
        federation, aggregator=BASELINES[name], objective=Plain(), evaluate_every=0
    )
    if name != "local":
        return federation
    honest = dataclasses.replace(federation.faults, hostile=0.0)
    return dataclasses.replace(federation, faults=honest, privacy=PrivacyConfig())


def _epsilon(privacy: PrivacyConfig, result: RoundResult) -> float | None:
    """ε of the client that has sent most task vectors; None without privacy."""
    return None if privacy.clip is None else epsilon(privacy, int(result.ledger.sent.max()))


def _conditions(config: Config, data: FederatedData, last: dict[str, Any]) -> dict[str, Any]:
    """What the summary says about attacks and privacy, where there are any."""
    found: dict[str, Any] = {}
    hostile = hostile_rows(data.ids, config.faults, config.seed)
    if hostile:
        names = [data.ids[row] for row in sorted(hostile)]
        found["hostile"] = {
            "attack": config.faults.attack,
            "strength": config.faults.strength,
            "clients": names,
        }
    if config.privacy.clip is not None:
        found["privacy"] = dataclasses.asdict(config.privacy) | {"epsilon": last["epsilon"]}
    return found


def _trackers(
    config: Config, folder: RunFolder, settings: dict[str, Any], data: FederatedData
) -> list[Tracker]:
    trackers: list[Tracker] = [JsonLines(folder.metrics)]
    from fedpl.tracking.weights_and_biases import WandbTracker, choose_mode

    if choose_mode(config.tracking.wandb) != "disabled":
        id = folder.wandb_id()
        trackers.append(WandbTracker(config.tracking.wandb, folder.path, settings, data.ids, id))
    return trackers


def _used_vectors(result: RoundResult) -> Float[np.ndarray, "clients params"]:
    """The task vectors of a round; NaN for clients that had no part in it, which every rule leaves out."""
    vectors = result.vectors.cpu().numpy()
    if not (away := result.ledger.age != 0).any():
        return vectors
    return np.where(away[:, None], np.float32(np.nan), vectors)
