"""Whose a row is: as a column says, or as a partition deals it to made-up clients."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from fedpl.data.wording import counted, some
from fedpl.errors import UserError


class Rows(NamedTuple):
    """What a partition may look at, row by row.

    Attributes:
        texts: The texts.
        labels: The classes; empty words where answers are none.
        clients: What the client column says; empty words where it is not read.
        splits: What the split column says; empty words without one.
    """

    texts: Sequence[str]
    labels: Sequence[str]
    clients: Sequence[str]
    splits: Sequence[str]


class Partition(ABC):
    """Who gets which rows. Implementations are frozen dataclasses named by ``class_path``.

    Attributes:
        natural: Whether clients are those of the client column.
        labelled: Whether rows need classes.
    """

    natural: ClassVar[bool] = False
    labelled: ClassVar[bool] = False

    @abstractmethod
    def owners(self, rows: Rows, near_duplicates: float, seed: int) -> Sequence[str]:
        """The client of each row.

        Args:
            rows: n rows of all tables.
            near_duplicates: Similarity from which texts belong together, as in `Splitting`; 0: none do.
            seed: The run's.

        Returns:
            n client ids.

        Raises:
            UserError: If the rows cannot be dealt like this.
        """

    @property
    def names(self) -> tuple[str, ...]:
        """The clients there are to be; empty: those of the column."""
        return ()

    def problems(self) -> Sequence[str]:
        """What can be seen to be wrong without reading the data, one line each."""
        return ()

    def note(self, owners: Sequence[str], labels: Sequence[str]) -> Sequence[str]:
        """What the first lines of a run say about it."""
        return ()


@dataclass(frozen=True)
class ByColumn(Partition):
    """Clients as the column ``data.columns.client`` has them, or one per file (``@file``)."""

    natural: ClassVar[bool] = True

    def owners(self, rows: Rows, near_duplicates: float, seed: int) -> Sequence[str]:
        return rows.clients


def refuse_empty(partition: Partition, owners: Sequence[str]) -> None:
    """Refuse clients that got nothing.

    Raises:
        UserError: Naming them.
    """
    without = sorted({*partition.names} - {*owners})
    if without:
        whom = f"{len(without)} of {counted(len(partition.names), 'client')}"
        raise UserError(
            f"data.partition: {partition}: {whom} without a row of {len(owners):,}: {some(without)}; take "
            f"fewer clients or a more even partition, leave them out with --data.small_clients drop, or keep "
            f"texts of one template apart with --data.splitting.near_duplicates 0"
        )
