"""What is done with the rounds of a run's method: recorded, tracked, stored, shown."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.files import write_atomically
from fedpl.interop import on_host
from fedpl.presets import differences
from fedpl.records.messages import Census
from fedpl.rounds.loop import RoundResult
from fedpl.runs.folder import RunFolder
from fedpl.runs.origin import Origin
from fedpl.runs.summary import round_record
from fedpl.settings import plain
from fedpl.site.privacy import epsilon
from fedpl.tracking.matrices import Matrices
from fedpl.tracking.progress import Display
from fedpl.tracking.tracker import Beside, JsonLines, Tracker, beside
from fedpl.tracking.vectors import store_vectors
from fedpl.versions import versions

if TYPE_CHECKING:
    from fedpl.tracking import session
    from fedpl.tracking import weights_and_biases as wandb
else:
    session = deferred("fedpl.tracking.session")
    wandb = deferred("fedpl.tracking.weights_and_biases")


def opening(
    config: Config,
    census: Census,
    folder: Path,
    done: int | None,
    notes: Sequence[str] = (),
    changed: Iterable[str] = (),
) -> Iterator[str]:
    """The first lines of a run.

    Args:
        config: What is run.
        census: All clients.
        folder: The run directory.
        done: After which round it goes on; None: it is new.
        notes: About the data.
        changed: Which versions are others than those that the run began with.
    """
    size = f"{len(census.members)} clients, {census.layout.size:,} trainable parameters each"
    yield f"fedpl: {config.name} on {census.place}: {size}"
    yield from (f"fedpl: {note}" for note in notes)
    if config.task.zero_shot and (floors := [m.floor for m in census.members if m.floor is not None]):
        metric = census.metrics[0]
        mean = metric.shown(sum(floor[metric.name] for floor in floors) / len(floors))
        yield (
            f"fedpl: without learning (each client's better one of the frozen model and of answers that look "
            f"at no prompt): {metric.title} {mean}"
        )
    for method in config.methods:
        if method.heads_alone and not config.task.headed:
            yield f"fedpl: {method.name}: the task has no head: whole adapters are compared in its place"
        if times := method.aggregator.weighting.halves:
            yield (
                f"fedpl: {method.name}: in its first {times} rounds a client trains on two halves of its "
                f"examples too, as long again, and reports one number"
            )
    other = differences(config.method)
    if other:
        yield f"fedpl: other than the method '{config.name}' that ships: {', '.join(other)}"
    yield f"fedpl: {folder}" + (" is the run directory" if done is None else f" goes on after round {done}")
    other = list(changed)
    if other:
        yield f"fedpl: begun with other versions, so equal up to rounding only: {', '.join(other)}"


def trackers_of(config: Config, folder: RunFolder, census: Census) -> list[Tracker]:
    """Where the rounds' records go."""
    trackers: list[Tracker] = [JsonLines(folder.metrics), Matrices(folder.sub("matrices"))]
    if session.choose_mode(config.tracking.wandb) != "disabled":
        id, done, what = _wandb_id(folder), folder.records(), "Weights & Biases"
        settings = plain(replace(config, run_dir=None)) | _facts(census, folder.origin)
        with beside(what):
            tracker = wandb.WandbTracker(
                config.tracking.wandb, folder.path, settings, id, config.rounds, done
            )
            trackers.append(Beside(what, tracker))
    return trackers


def _wandb_id(folder: RunFolder) -> str:
    """The W&B run's id, kept for when the run is gone on with: a new run's may come from the environment."""
    path, asked = folder.sub("state") / "wandb-id", session.asked_id()
    if asked is not None and not path.exists():
        write_atomically(path, asked.encode())
    return folder.wandb_id()


def _facts(census: Census, origin: Origin) -> dict[str, Any]:
    """What W&B's configuration says beside the settings, for filters and tables over runs."""
    return {
        "federation": {
            "clients": len(census.members),
            "classes": len(census.labels),
            "examples": sum(member.examples for member in census.members),
            "parameters": census.layout.size,
            "place": census.place,
            "data": origin.data,
            "start": origin.start if origin.begun is None else origin.begun.digest,
        },
        "versions": versions(),
    }


def record_rounds(
    config: Config, census: Census, folder: RunFolder, trackers: Sequence[Tracker], display: Display
) -> Callable[[RoundResult], None]:
    """What takes every round of the method."""

    def heard(result: RoundResult) -> None:
        spent = _epsilon(config, result)
        record = round_record(config.name, census.clients, result, census.metrics, spent)
        for tracker in trackers:
            tracker.round(record, result)
        if config.store_vectors:
            target = folder.sub("vectors")
            shape = len(result.ledger.age), result.vectors.shape[1]
            store_vectors(target, result.round, _used_vectors(result), shape, config.store_vectors)
        display.round(record, config.rounds)

    return heard


def _epsilon(config: Config, result: RoundResult) -> float | None:
    """ε of the client that has sent most task vectors; None without privacy."""
    if config.privacy.clip is None:
        return None
    return epsilon(config.privacy, int(result.ledger.sent.max()) if config.method.exchanges else 0)


def _used_vectors(result: RoundResult) -> Iterator[Float[np.ndarray, "params"]]:
    """The task vectors of a round; NaN for clients that had no part in it, which every rule leaves out."""
    place = {row: i for i, row in enumerate(result.rows)}
    absent = np.full(result.vectors.shape[1], np.nan, np.float32)
    for row, age in enumerate(result.ledger.age.tolist()):
        if age == 0 and row in place:
            yield on_host(result.vectors[place[row]])
            result.settle()
        else:
            yield absent
