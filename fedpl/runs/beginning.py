"""What the clients of a run begin with where that are another run's models, and where it lies.

The run keeps it in files of its own (``state/start``), so it needs the other one no more: resume, replay,
newcomers and every method of the run begin with the same.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.files import make_folder, writing
from fedpl.records.earlier import Holding
from fedpl.records.layout import AdapterLayout, merge_ranges
from fedpl.rounds.checkpoints import Checkpoint, Checkpoints, Ledger
from fedpl.rounds.room import Room
from fedpl.server.aggregator import Aggregator
from fedpl.server.models import Models
from fedpl.server.parts import open_part
from fedpl.server.state import ServerState


@dataclass(frozen=True, eq=False)
class Beginning:
    """Models to begin with.

    Attributes:
        models: Of every client of the run, and one more: of whoever the earlier run did not have.
        reference: θ₀ of the earlier run, from which what was learned is counted.
        holding: Whose updates are in them, where it is known and they are being put down.
    """

    models: Models
    reference: Float[np.ndarray, "params"]
    holding: Holding | None = None

    @classmethod
    def read(cls, folder: Path, digest: str) -> "Beginning":
        """That of a run.

        Args:
            folder: Where `write` has put it.
            digest: What it must be.

        Raises:
            UserError: If it is not there any more, or not what the run began with.
        """
        found = aggregates(folder, 0)
        if found is None or found.digest != digest:
            raise UserError(
                f"{folder} no longer holds the models that the run began with; put it back, or start a new "
                f"run"
            )
        return found

    def write(self, folder: Path) -> None:
        """Put it into a folder, which is made; every distinct model once.

        Raises:
            UserError: If it cannot be written.
        """
        with writing(folder):
            make_folder(folder)
        names = [self._name(client) for client in range(len(self.models))]
        kept = {name: place for place, name in enumerate(dict.fromkeys(names))}
        rows = open_part(folder, 0, (len(kept), self.models.shape[1]))
        for (made, row), place in kept.items():
            rows[place] = self.models.parts[made][row]
        places = np.array([kept[name] for name in names], np.int32)
        models: Any = Models({0: rows}, np.zeros(len(names), np.int32), places)
        state = ServerState(0, models, jnp.asarray(self.reference))
        Checkpoints(folder).save(Checkpoint(state, Ledger.new(len(names)), None, {}, {}, "", 0.0))
        if self.holding is not None:
            self.holding.write(folder)

    @cached_property
    def digest(self) -> str:
        """A name for the models, whose they are, and θ₀."""
        digest, known = hashlib.blake2b(self.reference.tobytes(), digest_size=16), {}
        for client in range(len(self.models)):
            if (name := self._name(client)) not in known:
                known[name] = hashlib.blake2b(self.of(client).tobytes(), digest_size=16).digest()
            digest.update(known[name])
        return digest.hexdigest()

    def of(self, client: int) -> Float[np.ndarray, "params"]:
        """A client's model, by number; −1: of one that the earlier run did not have."""
        made, row = self._name(client)
        return np.array(self.models.parts[made][row])

    def under(
        self, rule: Aggregator, layout: AdapterLayout, clients: Iterable[int]
    ) -> Iterator[Float[np.ndarray, "params"]]:
        """What clients begin with under a rule: what is averaged is the same for all, the mean.

        Args:
            rule: The rule.
            layout: Of its vectors.
            clients: As of `of`.
        """
        common = merge_ranges(rule.shared(layout)) if rule.weighting.one_for_all else ()
        mean = self.of(-1)
        for client in clients:
            own = self.of(client)
            for start, stop in common:
                own[start:stop] = mean[start:stop]
            yield own

    def checkpoint(
        self, rule: Aggregator, layout: AdapterLayout, clients: Sequence[str], room: Room | None
    ) -> Checkpoint:
        """Where a method stands before its first round.

        Args:
            rule: The method's.
            layout: Of its vectors.
            clients: Ids by row.
            room: Where aggregates lie on disk; None: in memory.
        """
        n = len(clients)
        state = rule.start(jnp.array(self.reference), n)
        state = state._replace(personal=self._models(rule, layout, n, room))
        return Checkpoint(state, Ledger.new(n), None, dict.fromkeys(clients, ""), {}, "", 0.0)

    def _models(self, rule: Aggregator, layout: AdapterLayout, clients: int, room: Room | None) -> Any:
        """All clients' models under a rule, each distinct one once."""
        one = rule.one_model(layout)
        names = [self._name(client) for client in ([-1] if one else range(clients))]
        first = {name: -1 if one else client for client, name in reversed(list(enumerate(names)))}
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        shape = len(places), self.models.shape[1]
        rows = np.empty(shape, np.float32) if room is None else room.part(0, len(places))
        for target, own in zip(rows, self.under(rule, layout, (first[name] for name in places)), strict=True):
            target[:] = own
        part = jnp.array(rows) if room is None else rows
        if one:
            return Models.start(part, clients)
        own_places = np.array([places[name] for name in names], np.int32)
        return Models({0: part}, np.zeros(clients, np.int32), own_places)

    def _name(self, client: int) -> tuple[int, int]:
        return int(self.models.made[client]), int(self.models.row[client])


def aggregates(folder: Path, round: int) -> Beginning | None:
    """The aggregates of a checkpoint's folder, in their files, if they are there and of this round."""
    found = Checkpoints(folder).state()
    if found is None or found.round != round:
        return None
    return Beginning(found.models, np.asarray(found.reference))
