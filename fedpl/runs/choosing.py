"""Lets clients choose what answers for them, when the methods of a run have ended."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.files import quoted
from fedpl.interop import library
from fedpl.records.choice import FOLDER, Choice
from fedpl.records.messages import Begin, Choose
from fedpl.rounds.checkpoints import Checkpoint
from fedpl.rounds.holding import together
from fedpl.runs.folder import RunFolder
from fedpl.runs.standing import Standing

_TOGETHER = 2**27  # bytes of aggregates that are chosen from at a time


def let_choose(main: Standing, baselines: Sequence[Standing], folder: RunFolder) -> dict[str, Choice]:
    """What each client chose by its validation data; nothing of those whose site keeps that to itself.

    Args:
        main: The method, at its end.
        baselines: All of them, at their ends; of `local` the models are taken.
        folder: The run directory.

    Raises:
        UserError: If a state is not intact any more.
    """
    federation, clients = main.federation, main.federation.clients
    alone = next((one for one in baselines if one.federation.method.name == "local"), None)
    last, local = _last(main), None if alone is None else _last(alone)
    like = federation.census.initial
    memory = None if federation.folder is None else str(federation.folder)
    federation.executor.tell(Begin(federation.method.name, memory))
    size = max(_TOGETHER // (4 * federation.census.layout.size), 1)
    for start in range(0, len(clients), size):
        rows = range(start, min(start + size, len(clients)))
        own = tuple(clients[row] for row in rows)
        federation.executor.tell(
            Choose(
                folder=str(folder.path),
                clients=own,
                models=_rows(last, clients, rows, like),
                memories={client: last.memories.get(client, "") for client in own},
                tuned=tuple(clients[row] for row in rows if last.ledger.age[row] == 0),
                local=None if local is None else _rows(local, clients, rows, like),
                round=last.state.round,
            )
        )
    return chosen(folder.path, clients)


def chosen(run: Path, clients: Sequence[str]) -> dict[str, Choice]:
    """What clients of a run chose, as far as it is written there."""
    folders = {client: run / FOLDER / quoted(client) for client in clients}
    return {client: Choice.read(own) for client, own in folders.items() if (own / Choice.FILE).is_file()}


def _last(method: Standing) -> Checkpoint:
    found = method.folder.checkpoints.latest(room=method.federation.room)
    if found is None:
        raise UserError(f"{method.folder.path} holds no intact state any more")
    return found


def _rows(
    last: Checkpoint, clients: tuple[str, ...], rows: Sequence[int], like: Float[Any, "..."]
) -> Float[Any, "some params"]:
    parts = [models for _, models in together(last.state.models, clients, rows, like)]
    return library(like).concatenate(parts)
