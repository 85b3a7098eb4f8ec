"""Where a method stands between two rounds, on disk: what the next round needs beside the configuration."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from fedpl.errors import UserError
from fedpl.files import read_tensors, scratch, write_tensors, writing
from fedpl.server.rows import once, spread
from fedpl.server.state import ServerState, state_of, state_tensors

_log = logging.getLogger(__name__)
_KEPT = 2
# Of what is in a checkpoint: 1 held what clients remember, 2 no digest of the records, 3 (read like 4) equal
# rows once for each client.
_FORMAT, _READ = "4", ("3", "4")


class Outdated(UserError):
    """A checkpoint of another version of fedpl: going back before it would lose work without a word."""


class Room(NamedTuple):
    """Where a method's task vectors and aggregates lie on disk.

    Attributes:
        vectors: Task vectors, a row for each client.
        aggregates: θ̄ᵢ.
    """

    vectors: Float[np.ndarray, "clients params"]
    aggregates: Float[np.ndarray, "clients params"]

    @classmethod
    def below(cls, folder: Path, clients: int, params: int) -> "Room":
        """Two files without a name in a folder; they are gone with the process.

        Raises:
            UserError: If there is no room for them.
        """
        return cls(*(scratch(folder, (clients, params)) for _ in cls._fields))


class Ledger(NamedTuple):
    """What the server knows of each client beside its task vector.

    Attributes:
        age: Rounds since its row was filled: 0 in this round, −1 never, or what came was not usable.
        examples: Training examples it named last; 0 before it ever answered.
        sent: Task vectors it has sent since the start, usable or not.
    """

    age: Int[np.ndarray, "clients"]
    examples: Int[np.ndarray, "clients"]
    sent: Int[np.ndarray, "clients"]

    @classmethod
    def new(cls, clients: int) -> "Ledger":
        """Before the first round."""
        return cls(np.full(clients, -1), np.zeros(clients, int), np.zeros(clients, int))


class Checkpoint(NamedTuple):
    """A method between two rounds.

    Attributes:
        state: The server's state.
        ledger: What the server knows of the clients.
        last_sent: Task vectors that clients sent last, where absent ones' may still be needed; else None.
        memories: Digests of what each client remembers; its site keeps it.
        capacity: What the executor had chosen for the machine, see `Company.capacity`.
        records: Digest of what was recorded of the rounds so far; empty where nothing is.
        elapsed: Seconds that the run had taken.
    """

    state: ServerState
    ledger: Ledger
    last_sent: Float[np.ndarray, "clients params"] | None
    memories: Mapping[str, str]
    capacity: Mapping[str, int]
    records: str
    elapsed: float


class Checkpoints:
    """The last two checkpoints of a method; the newest that is intact counts.

    Args:
        folder: Where they are; it exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then drop those before the last two.

        Raises:
            UserError: If it cannot be written; the earlier ones are untouched.
        """
        tensors = state_tensors(checkpoint.state)
        tensors |= {f"ledger.{name}": value for name, value in checkpoint.ledger._asdict().items()}
        if checkpoint.last_sent is not None:
            tensors["last_sent"] = checkpoint.last_sent
        metadata = {
            "format": _FORMAT,
            "round": str(checkpoint.state.round),
            "memories": json.dumps(checkpoint.memories),
            "capacity": json.dumps(dict(checkpoint.capacity)),
            "records": checkpoint.records,
            "elapsed": repr(checkpoint.elapsed),
        }
        write_tensors(self._path(checkpoint.state.round), once(tensors), metadata)
        self.prune()

    def latest(self, limit: int | None = None, room: Room | None = None) -> Checkpoint | None:
        """The newest intact checkpoint, or None; damaged ones are reported and passed over.

        Args:
            limit: Last round to look at; None: any.
            room: Where aggregates and task vectors belong on disk; None: in memory.

        Raises:
            Outdated: If it is of another version of fedpl.
        """
        for path in self._paths():
            if limit is not None and path > self._path(limit):
                continue
            try:
                tensors, metadata = read_tensors(path, mapped=room is not None)
                _check_format(path, metadata)
                return _checkpoint_of(path, tensors, metadata, room)
            except Outdated:
                raise
            except UserError as error:
                _log.warning("%s; going back to the state before it", error)
        return None

    def prune(self, kept: int = _KEPT) -> None:
        """Drop all but the newest checkpoints."""
        with writing(self.folder):
            for path in self._paths()[kept:]:
                path.unlink(missing_ok=True)

    def _path(self, round: int) -> Path:
        return self.folder / f"round-{round:06d}.safetensors"

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("round-??????.safetensors"), reverse=True)


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    found = metadata.get("format", "1")
    if found not in _READ:
        raise Outdated(
            f"resume: {path} has format {found} of another version of fedpl, this one reads {_FORMAT}: go on "
            f"with the version that began the run, or start a new run (fedpl.replay reads its task vectors)"
        )


def _checkpoint_of(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str], room: Room | None
) -> Checkpoint:
    try:
        own = {} if room is None else {"personal": room.aggregates, "last_sent": room.vectors}
        tensors = spread(tensors, own)
        return Checkpoint(
            state_of(tensors, int(metadata["round"]), room is not None),
            Ledger(*(np.array(tensors[f"ledger.{name}"]) for name in Ledger._fields)),
            tensors.get("last_sent"),
            json.loads(metadata["memories"]),
            json.loads(metadata["capacity"]),
            metadata["records"],
            float(metadata["elapsed"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint written by fedpl: {error}") from error
