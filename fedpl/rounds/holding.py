"""The aggregates between two rounds, as clients receive them and as the server's rule takes them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fedpl.executors.protocol import Executor
from fedpl.files import release
from fedpl.interop import borrow, library, stacked
from fedpl.mapped import trim
from fedpl.records.scores import Scores
from fedpl.rounds.room import Room
from fedpl.server.models import Models, distinct
from fedpl.server.ondisk import OnDisk

_TOGETHER = 2**26  # bytes of aggregates that are put together to be scored or delivered


def lines(models: Models, clients: Sequence[int], like: Float[Any, "..."]) -> dict[int, Float[Any, "params"]]:
    """Every client's aggregate, without a copy: read only, and drop them before the rule has its round."""
    parts = {made: borrow(part, like) for made, part in models.parts.items()}
    return {client: parts[int(models.made[client])][int(models.row[client])] for client in clients}


def taken(
    models: Models, clients: Sequence[int], like: Float[Any, "..."]
) -> Float[jax.Array, "clients params"]:
    """A row for each of these clients, which a rule may overwrite: the models' own where these are all."""
    whole = models.whole
    if whole is not None and len(clients) == len(models):
        return whole
    return stacked(list(lines(models, clients, like).values()))


class Holding:
    """How the aggregates come to a rule for a round, and what becomes of the new ones.

    Args:
        models: The aggregates before it.
        round: Its number.
        clients: Whose are worked on.
        one: Whether all clients have one and the same at any time.
        room: Where they lie on disk; None: in memory.
        like: Of which kind rows are, see `fedpl.interop`.
    """

    def __init__(
        self,
        models: Models,
        round: int,
        clients: Sequence[int],
        one: bool,
        room: Room | None,
        like: Float[Any, "..."],
    ) -> None:
        self.models, self.round, self.room, self.like = models, round, room, like
        self._clients = range(len(models)) if one else clients  # who has another row afterwards
        self._rows = clients[:1] if one else clients
        self._staying = models.staying(self._clients)
        self._left = sum(len(left.rows) for left in self._staying)

    def given(self) -> Any:
        """What a rule takes as the clients' aggregates, and may overwrite."""
        if self.room is None:
            return taken(self.models, self._rows, self.like)
        target = self.room.part(self.round, len(self._rows) + self._left)
        return OnDisk(self.models, self._rows, target, self.room.panel, self.room.vectors, self.room.shards)

    def after(self, new: Any) -> Models:
        """The aggregates of all clients once a rule has made new ones of what it was given."""
        n = len(self._rows)
        own = np.asarray(new) if self.room is None else new.target[:n]
        kept, places = distinct(own, self._settling(own))
        if len(self._clients) > n:
            places = np.zeros(len(self._clients), np.int32)
        rows = self._in_memory(new, own, kept) if self.room is None else self._on_disk(new, own, kept)
        return self.models.after(self.round, rows, self._clients, places, self._staying)

    def _in_memory(self, new: jax.Array, own: np.ndarray, kept: np.ndarray | None) -> jax.Array:
        if kept is None and not self._left:
            return new
        return jnp.array(np.stack([*(own if kept is None else own[kept]), *self._leftover()]))

    def _on_disk(self, new: OnDisk, own: np.ndarray, kept: np.ndarray | None) -> np.ndarray:
        room, rows = self.room, new.target
        assert room is not None
        if kept is not None:
            rows = room.part(self.round, len(kept) + self._left)
        settle = self._settling(rows, new.target)
        if kept is not None:
            _copy(rows[: len(kept)], (own[row] for row in kept), settle)
        _copy(rows[len(rows) - self._left :], self._leftover(), settle)
        release(rows, new.target, *self.models.parts.values())
        return rows

    def _settling(self, *rows: Any) -> Callable[[], None]:
        return (lambda: None) if self.room is None else self.room.settling(self.models, *rows)

    def _leftover(self) -> Iterator[np.ndarray]:
        for left in self._staying:
            part = self.models.parts[left.part]
            yield from (np.asarray(part[row]) for row in left.rows)


def _copy(rows: np.ndarray, values: Iterable[np.ndarray], settle: Callable[[], None]) -> None:
    for row, value in zip(rows, values, strict=True):
        row[:] = value
        settle()


def together(
    models: Models,
    clients: tuple[str, ...],
    asked: Sequence[int],
    like: Float[Any, "..."],
    room: Room | None = None,
) -> Iterator[tuple[tuple[str, ...], Float[Any, "some params"]]]:
    """Clients and their aggregates, without a copy where that can be, else some at a time.

    Args:
        models: The aggregates.
        clients: Ids by row.
        asked: Rows, in order.
        like: Of which kind rows are, see `fedpl.interop`.
        room: Where they lie on disk; None: in memory.
    """
    whole = models.whole
    if isinstance(whole, jax.Array) and len(asked) == len(models):
        yield clients, borrow(whole, like)
    else:
        # As many lie in their file's memory beside, and those of before may not be gone yet.
        size = max((_TOGETHER if room is None else room.budget // 8) // (4 * models.shape[1]), 1)
        for start in range(0, len(asked), size):
            rows = asked[start : start + size]
            owners = tuple(clients[row] for row in rows)
            yield owners, library(like).stack(list(lines(models, rows, like).values()))
            release(*models.parts.values())
            if room is not None:
                trim()


def scored(
    executor: Executor,
    clients: tuple[str, ...],
    models: Models,
    asked: Sequence[int],
    split: str,
    room: Room | None = None,
) -> Mapping[str, Scores]:
    """Quality of clients' aggregates on a split of their own data; arguments as of `together`."""
    found: dict[str, Scores] = {}
    for some, rows in together(models, clients, asked, executor.join().initial, room):
        found |= executor.score(some, rows, split)
    return found
