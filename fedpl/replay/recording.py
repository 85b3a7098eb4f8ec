"""A run that stored its task vectors, as something to aggregate again."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.rounds import read_rounds
from fedpl.runs.resume import saved_configuration

if TYPE_CHECKING:
    from fedpl import interop
    from fedpl.runs import sharing
    from fedpl.tracking import vectors
else:
    interop, sharing, vectors = map(
        deferred, ("fedpl.interop", "fedpl.runs.sharing", "fedpl.tracking.vectors")
    )


class Recording(NamedTuple):
    """A run's rounds.

    Attributes:
        folder: The run directory.
        config: What was run.
        rounds: The files of its rounds' task vectors, from the first on.
    """

    folder: Path
    config: Config
    rounds: tuple[Path, ...]


def play(
    rounds: Sequence[Path], matrix: Float[Any, "clients params"]
) -> Iterator[tuple[Bool[np.ndarray, "clients"], Int[np.ndarray, "clients"]]]:
    """Put recorded task vectors into a matrix, round by round: each overwrites the one before.

    Who took no part counts, if at all, with what it last sent.

    Args:
        rounds: The files.
        matrix: A row for each recorded client.

    Yields:
        Who took part, and rounds since a row was filled; −1: never.
    """
    age = np.full(len(matrix), -1)
    matrix[:] = 0
    for recorded in rounds:
        sent = vectors.read_vectors(recorded)
        mask = ~np.isnan(sent).all(1)
        for row in np.flatnonzero(mask):
            matrix[row] = interop.borrow(sent[row], matrix)
        age = np.where(mask, 0, np.where(age < 0, -1, age + 1))
        yield mask, age


def read_recording(folder: Path) -> Recording:
    """A run directory's rounds.

    Raises:
        UserError: If it holds no run, or its task vectors were not stored.
    """
    config = saved_configuration(folder)
    files = vectors.stored_rounds(folder / "vectors")
    rounds = sorted(files)
    if not rounds or rounds != list(range(1, len(rounds) + 1)):
        raise UserError(
            f"{folder} has no task vectors of every round: run it again with --store_vectors true"
        )
    return Recording(folder, config, tuple(files.values()))


def halves_told(recording: Recording, clients: Sequence[str]) -> list[Float[np.ndarray, "clients"]] | None:
    """What clients had reported of the halves of their examples after each round, NaN where nothing.

    Args:
        recording: The rounds.
        clients: Whose, in this order.

    Returns:
        None if nobody was asked.
    """
    found = []
    for record in read_rounds(recording.folder / "metrics.jsonl"):
        if record.method == recording.config.name:
            told = dict(zip(record.clients.id, record.clients.halves or (), strict=False))
            found.append(np.array([told.get(client) for client in clients], np.float64))
    return found if any(np.isfinite(one).any() for one in found) else None


def check_vectors(recording: Recording, clients: int, size: int) -> None:
    """Refuse files that do not hold a row for each client, of as many parameters as the model has.

    Args:
        recording: The rounds.
        clients: Number of clients.
        size: Number of parameters.

    Raises:
        UserError: Naming the file, what was expected and what came.
    """
    for path in recording.rounds:
        expected = np.dtype(np.uint16 if path.name.endswith(".bf16.npy") else np.float32)
        try:
            found = np.load(path, mmap_mode="r")
            came = f"{found.dtype} {found.shape}"
        except (OSError, ValueError, EOFError, AttributeError) as error:
            raise UserError(f"{path} holds no task vectors written by fedpl: {error}") from error
        if (found.dtype, found.shape) != (expected, (clients, size)):
            raise UserError(
                f"{path}: expected task vectors of {clients} clients with {size} parameters "
                f"({expected} {(clients, size)}), got {came}; put the run's own file back"
            )


def check_same_training(recording: Recording, config: Config) -> None:
    """Refuse settings under which other task vectors would have been trained.

    Raises:
        UserError: Naming them.
    """
    before, now = sharing.client_side(recording.config), sharing.client_side(config)
    different = [name for name in Config.__dataclass_fields__ if getattr(before, name) != getattr(now, name)]
    if config.rounds != recording.config.rounds:
        different.append("rounds")
    if different:
        raise UserError(
            f"{', '.join(different)}: a replay trains nothing, only aggregator.* can differ from the run in "
            f"{recording.folder}"
        )
