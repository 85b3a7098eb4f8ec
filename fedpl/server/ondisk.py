"""Aggregates that lie in files: a round reads some columns of them and writes the new ones elsewhere."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from fedpl.files import release
from fedpl.mapped import read_columns, write_columns
from fedpl.server.models import Models

PANEL = 2**25  # bytes of one matrix at a time
PANELS = 16  # of a budget: what came, what was and will be, copies on the way, twice where they overlap


@runtime_checkable
class Shards(Protocol):
    """Who works on the shares of a step.

    Attributes:
        size: How many they are.
        far: Whether on other machines.
    """

    size: int
    far: bool

    def each(self, verb: str, orders: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What comes of an order for each of them, in their order; verbs: `fedpl.server.shard.Shard`."""
        ...


class OnDisk(NamedTuple):
    """The aggregates of a round's clients.

    Attributes:
        models: What there is before the round.
        clients: Whose rows are meant; one of them where all clients have the same.
        target: Where their new rows go, in the same order; it may be where the old ones are.
        panel: Bytes of a matrix that are worked on at once.
        vectors: The round's task vectors in a file; None: they are where the rule is given them.
        shards: Who works on them; None: this process.
    """

    models: Models
    clients: Sequence[int] | np.ndarray
    target: Any
    panel: int = PANEL
    vectors: Any = None
    shards: Shards | None = None

    def read(self, columns: slice) -> Float[Array, "rows _"]:
        """Some columns of the old rows."""
        clients = np.asarray(self.clients)
        parts = [self.models.parts[made] for made in self.models.made[clients].tolist()]
        return jnp.array(read_columns(parts, self.models.row[clients].tolist(), columns))

    def write(self, columns: slice, values: Float[np.ndarray, "rows _"]) -> None:
        """Some columns of the new rows."""
        write_columns(self.target, columns, values)

    def release(self) -> None:
        """Give back the memory that holds what has been read and written; it is on its way to the disk."""
        release(self.target, self.vectors, *self.models.parts.values())
