"""Where a method stands between two rounds, on disk: what the next round needs beside the configuration."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from fedpl.errors import UserError
from fedpl.files import read_metadata, read_tensors, write_tensors, writing
from fedpl.rounds.room import Room
from fedpl.server.models import Models
from fedpl.server.parts import NAMES, named_parts, names_of, part_path, read_models, write_part
from fedpl.server.rows import once, spread
from fedpl.server.state import ServerState, state_of, state_tensors

_log = logging.getLogger(__name__)
_KEPT = 2
# Of what is in a checkpoint: 1 held what clients remember, 2 no digest of the records, 3 (read like 4) equal
# rows once for each client.
# Until 4 the aggregates were in it; since 5 it names the files of the rounds that made them.
_FORMAT, _READ = "5", ("3", "4", "5")


class Outdated(UserError):
    """A checkpoint of another version of fedpl: going back before it would lose work without a word."""


class Ledger(NamedTuple):
    """What the server knows of each client beside its task vector.

    Attributes:
        age: Rounds since its row was filled: 0 in this round, −1 never, or what came was not usable.
        examples: Training examples it named last; 0 before it ever answered.
        sent: Task vectors it has sent since the start, usable or not.
        told: How often it told what two halves of its examples have in common.
        halves: The sum of what it told.
    """

    age: Int[np.ndarray, "clients"]
    examples: Int[np.ndarray, "clients"]
    sent: Int[np.ndarray, "clients"]
    told: Int[np.ndarray, "clients"]
    halves: Float[np.ndarray, "clients"]

    @classmethod
    def new(cls, clients: int) -> "Ledger":
        """Before the first round."""
        nothing = np.zeros(clients, int)
        return cls(np.full(clients, -1), nothing, nothing, nothing, np.zeros(clients))

    @property
    def agreement(self) -> Float[np.ndarray, "clients"]:
        """Mean of what each told of its halves; NaN for those that never did."""
        return np.where(self.told > 0, self.halves / np.maximum(self.told, 1), np.nan)


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
        self._written: dict[int, tuple[Any, str]] = {}  # parts of the aggregates that are there, and digests

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then drop those before the last two.

        Raises:
            UserError: If it cannot be written; the earlier ones are untouched.
        """
        models = _models(checkpoint.state)
        for made, rows in models.parts.items():
            if self._written.get(made, (None,))[0] is not rows:
                self._written[made] = rows, write_part(self.folder, made, rows)
        self._written = {made: self._written[made] for made in models.parts}
        named = names_of(models, {made: digest for made, (_, digest) in self._written.items()})
        tensors = state_tensors(checkpoint.state, aggregates=False) | named[0]
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
            **named[1],
        }
        write_tensors(self._path(checkpoint.state.round), once(tensors), metadata)
        self.prune()

    def latest(self, limit: int | None = None, room: Room | None = None) -> Checkpoint | None:
        """The newest intact checkpoint, or None; damaged ones are reported and passed over.

        Args:
            limit: Last round to look at; None: any.
            room: Where task vectors belong on disk, and aggregates stay there; None: in memory.

        Raises:
            Outdated: If it is of another version of fedpl.
        """
        for path in self._paths():
            if limit is not None and path > self._path(limit):
                continue
            try:
                tensors, metadata = read_tensors(path, mapped=room is not None)
                _check_format(path, metadata)
                found = _checkpoint_of(path, tensors, metadata, room)
            except Outdated:
                raise
            except UserError as error:
                _log.warning("%s; going back to the state before it", error)
                continue
            parts, named = _models(found.state).parts, named_parts(metadata)
            self._written = {made: (parts[made], digest) for made, digest in named.items()}
            return found
        return None

    def state(self) -> ServerState | None:
        """The state in the newest intact checkpoint, with its aggregates in their files; None: there is none.

        Raises:
            Outdated: If it is of another version of fedpl.
        """
        for path in self._paths():
            try:
                tensors, metadata = read_tensors(path, mapped=True)
                _check_format(path, metadata)
                models = read_models(path.parent, tensors, metadata, mapped=True)
                if models is None:  # an earlier version's
                    models = _whole(spread(tensors)["personal"], 0)
                return state_of(tensors, int(metadata["round"]), models)
            except Outdated:
                raise
            except (KeyError, ValueError) as error:
                _log.warning("%s is no checkpoint written by fedpl: %s", path, error)
            except UserError as error:
                _log.warning("%s; going back to the state before it", error)
        return None

    def prune(self, kept: int = _KEPT) -> None:
        """Drop all but the newest checkpoints, and the aggregates that none of them names."""
        with writing(self.folder):
            for path in self._paths()[kept:]:
                path.unlink(missing_ok=True)
            named = {part_path(self.folder, made) for path in self._paths() for made in _names(path)}
            for path in self.folder.glob(NAMES):
                if path not in named:
                    path.unlink(missing_ok=True)

    def _path(self, round: int) -> Path:
        return self.folder / f"round-{round:06d}.safetensors"

    def _paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("round-??????.safetensors"), reverse=True)


def _models(state: ServerState) -> Models:
    models: Any = state.personal
    return models if isinstance(models, Models) else _whole(models, state.round)


def _whole(matrix: Any, round: int) -> Models:
    """Aggregates as one part."""
    n = len(matrix)
    return Models({round: matrix}, np.full(n, round, np.int32), np.arange(n, dtype=np.int32))


def _names(path: Path) -> Iterable[int]:
    """The parts that a checkpoint names; none where it cannot be read, as it does not count."""
    try:
        return named_parts(read_metadata(path))
    except (UserError, ValueError, TypeError, AttributeError):
        return ()


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    found = metadata.get("format", "1")
    if found not in _READ:
        raise Outdated(
            f"resume: {path} has format {found} of another version of fedpl, this one reads {_FORMAT}: go on "
            f"with the version that began the run, or start a new run (fedpl.replay reads its task vectors)"
        )


def _named(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Those whose name begins so, by the rest of it; an earlier version had fewer."""
    return {k.removeprefix(prefix): np.array(v) for k, v in tensors.items() if k.startswith(prefix)}


def _checkpoint_of(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str], room: Room | None
) -> Checkpoint:
    try:
        round, models = int(metadata["round"]), read_models(path.parent, tensors, metadata, room is not None)
        own = {}
        if room is not None and "last_sent" in tensors:
            own["last_sent"] = room.vectors
        if room is not None and models is None:
            own["personal"] = room.part(round, len(tensors["ledger.age"]))
        tensors = spread(tensors, own)
        if models is None:  # an earlier version's
            models = _whole(
                tensors["personal"] if room is not None else jnp.array(tensors["personal"]), round
            )
        return Checkpoint(
            state_of(tensors, round, models),
            Ledger.new(len(tensors["ledger.age"]))._replace(**_named(tensors, "ledger.")),
            tensors.get("last_sent"),
            json.loads(metadata["memories"]),
            json.loads(metadata["capacity"]),
            metadata["records"],
            float(metadata["elapsed"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint written by fedpl: {error}") from error
