"""A new run takes over the models of a finished one: whose they are, and what is said of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedpl.config import Config
from fedpl.data.wording import counted, some
from fedpl.errors import UserError
from fedpl.files import release
from fedpl.records.earlier import Earlier, Holding
from fedpl.records.messages import Census
from fedpl.records.results import RunSummary
from fedpl.records.rounds import read_rounds
from fedpl.runs.beginning import Beginning, aggregates
from fedpl.runs.earlier import finished
from fedpl.runs.given import given_in, holding, is_known
from fedpl.runs.resume import saved_configuration
from fedpl.server.models import Models

_NAMED = 5  # clients that have left
_MOST = 2_000  # clients for whom it is kept whose updates are in what they begin with


class Taken(NamedTuple):
    """What a run takes over.

    Attributes:
        beginning: The models.
        earlier: The run they are of.
        lines: What is said of it first.
    """

    beginning: Beginning
    earlier: Earlier
    lines: tuple[str, ...]


def take_over(config: Config, census: Census) -> Taken | None:
    """What a new run begins with, where that is another run's models.

    A client that the earlier run had begins with its own last aggregate; who was not there with the mean of
    those that are in both runs, or of all if none is. Who has left has no part in that mean.

    Args:
        config: The new run.
        census: Its clients.

    Returns:
        What it takes over; None: all begin at θ₀.

    Raises:
        UserError: If the earlier run's models do not fit these clients.
    """
    if config.start_from is None:
        return None
    folder = Path(config.start_from)
    summary, clients = finished(folder), census.clients
    last = aggregates(folder / "state", summary.rounds)
    if last is None or len(last.models) != len(summary.clients):
        raise UserError(f"start_from: {folder} holds no intact state of its last round; put it back")
    if summary.classes != census.labels:
        raise UserError(
            f"start_from: {folder} has the classes {some(summary.classes, 8)}, these data "
            f"{some(census.labels, 8)}; an adapter's head answers with the same classes, in the same order"
        )
    if last.models.shape[1] != census.layout.size:
        raise UserError(
            f"start_from: adapters of {folder} have {last.models.shape[1]:,} numbers, these "
            f"{census.layout.size:,}; take the same model and lora settings"
        )
    place = {client: row for row, client in enumerate(summary.clients)}
    stay = [client for client in clients if client in place]
    rows = [place.get(client, -1) for client in (*clients, "")]
    models = _chosen(last.models, rows, [place[client] for client in stay or place])
    known = _holding(config, folder, clients, stay or list(place))
    found = Beginning(models, last.reference, known)
    earlier = Earlier(
        run=str(folder),
        method=summary.method,
        rounds=summary.rounds,
        digest=found.digest,
        epsilon=_released(summary),
    )
    release(*last.models.parts.values())
    return Taken(
        found, earlier, (*_lines(config, earlier, clients, list(place), known), *_spent(config, earlier))
    )


def _chosen(models: Models, rows: Sequence[int], among: Sequence[int]) -> Models:
    """Some clients' aggregates, by row; for −1 the mean of those among whom it is."""
    mean = np.zeros(models.shape[1])  # float64: the mean of equal rows is that row
    for one in among:
        mean += models.parts[int(models.made[one])][int(models.row[one])]
    made = np.array([models.made[one] if one >= 0 else -1 for one in rows], np.int32)
    row = np.array([models.row[one] if one >= 0 else 0 for one in rows], np.int32)
    return Models({**models.parts, -1: (mean / len(among)).astype(np.float32)[None]}, made, row)


def _holding(config: Config, folder: Path, clients: Sequence[str], among: Sequence[str]) -> Holding | None:
    """Whose updates the models hold; None where the earlier run does not say it, or clients are too many."""
    was, records = saved_configuration(folder), read_rounds(folder / "metrics.jsonl")
    if max(len(clients), len(records[0].clients.id)) > _MOST or not is_known(folder, was):
        return None
    known = given_in(folder, was, records)
    return holding(known, among, clients, config.aggregator.weighting.one_for_all)


def _released(summary: RunSummary) -> float | None:
    """ε of all that a run and those before it have released of a client's data."""
    own = summary.privacy and (summary.privacy.epsilon_with_baselines or summary.privacy.epsilon)
    before = summary.begun and summary.begun.epsilon
    return None if own is None and before is None else (own or 0.0) + (before or 0.0)


def _lines(
    config: Config, earlier: Earlier, clients: Sequence[str], before: Sequence[str], known: Holding | None
) -> Iterator[str]:
    """What the first lines of a run say of it."""
    new, left = sorted(set(clients) - set(before)), sorted(set(before) - set(clients))
    if len(new) == len(clients):
        yield f"begins with the mean of the {len(before)} models of {earlier}, none of whose clients is here"
        return
    stay = len(clients) - len(new)
    yield f"begins with the models of {earlier}: {counted(stay, 'client')} with their own"
    mean = f"the mean of these {stay}"
    if new:
        yield f"{counted(len(new), 'client')} it did not have with {mean}: {some(new)}"
    if averaging := [one.name for one in config.methods if one.aggregator.weighting.one_for_all]:
        yield f"what {', '.join(averaging)} averages begins at {mean} for all"
    for client in left[:_NAMED]:
        yield f"'{client}' has left; its updates stay in what {_receivers(client, clients, known)} begin with"
    if len(left) > _NAMED:
        yield f"{len(left) - _NAMED} more have left: {some(left[_NAMED:])}"
    if (Path(earlier.run) / "personal").is_dir():
        yield "what its clients keep beside their aggregates (personal/) is not taken over"


def _spent(config: Config, earlier: Earlier) -> Iterator[str]:
    """What privacy that run has cost."""
    if earlier.epsilon is not None:
        yield f"privacy: ε {earlier.epsilon:.3g} that {earlier.run} spent on its clients' data comes on top"
    elif config.privacy.clip is not None:
        yield f"privacy: {earlier.run} had none; ε is of what this run releases, not of what it begins with"


def _receivers(client: str, clients: Sequence[str], known: Holding | None) -> str:
    if known is None:
        return "others"
    if client not in known.clients:
        return "nobody"
    column = known.given[: len(clients), known.clients.index(client)]
    return f"{int((column > 0).sum())} of {len(clients)} clients"
