"""Where a method's task vectors and aggregates lie on disk, and how much of them is in memory at a time."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fedpl.mapped import Mapped, Settling, scratch
from fedpl.server.models import Models
from fedpl.server.ondisk import PANELS, Shards
from fedpl.server.parts import open_part

_VECTORS, _START = ".vectors.part", ".start.part"  # where shards look for them


@dataclass(frozen=True)
class Room:
    """Files of task vectors and aggregates.

    Attributes:
        folder: Of the method; the parts of the aggregates are in it.
        clients: Rows of task vectors: as many as are worked on in a round.
        params: Parameters of each.
        budget: Bytes of all these that may be in memory at a time.
        shards: Who works on them; None: this process.
    """

    folder: Path
    clients: int
    params: int
    budget: int
    shards: Shards | None = None

    @cached_property
    def vectors(self) -> Mapped:
        """Task vectors, in a file that is gone with them; it has a name where shards look for it.

        Raises:
            UserError: If there is no room for it.
        """
        shape = self.clients, self.params
        if self.shards is None:
            return scratch(self.folder, shape)
        (self.folder / _START).unlink(missing_ok=True)  # of a process that was killed
        return scratch(self.folder, shape, _VECTORS)

    @property
    def panel(self) -> int:
        """Bytes of one matrix that are worked on at once."""
        return max(self.budget // PANELS, 1)

    def part(self, round: int, rows: int) -> Mapped:
        """The aggregates that a round makes; they are whole once a checkpoint has been written.

        Raises:
            UserError: If there is no room for them.
        """
        return open_part(self.folder, round, (rows, self.params))

    def begin(self, models: Models) -> Models:
        """The aggregates before the first round, all the same, in a file where shards look for it.

        Raises:
            UserError: If there is no room for it.
        """
        if self.shards is None:
            return models
        (same,) = models.parts.values()
        rows = scratch(self.folder, same.shape, _START)
        rows[:] = same
        return Models.start(rows, len(models))

    def settling(self, models: Models, *others: Mapped) -> Settling:
        """What gives back the memory of rows, called for each client whose vector and aggregate are touched.

        These take a quarter of the budget at most.

        Args:
            models: The aggregates.
            others: More matrices of which rows are touched.
        """
        arrays = (self.vectors, *models.parts.values(), *others)
        return Settling(arrays, 2 * 4 * self.params, self.budget // 4)
