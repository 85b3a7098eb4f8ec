"""What a data source hands over: named clients, each with three splits of labelled texts."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fedpl.errors import UserError


@dataclass(frozen=True)
class Split:
    """Texts and their class indices, position by position."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise ValueError(f"{len(self.texts)} texts but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class ClientData:
    """One client's private data.

    Attributes:
        id: Unique name; also the client's folder under ``adapters/`` and the name of its random streams.
        group: The client's true group where it is known (for studies), else empty. No method reads it.
    """

    id: str
    train: Split
    validation: Split
    test: Split
    group: str = ""

    def majority(self) -> int:
        """What a constant predictor would answer: the most frequent training class, ties to the lowest."""
        counts = Counter(self.train.labels)
        return min(counts, key=lambda label: (-counts[label], label))


@dataclass(frozen=True)
class FederatedData:
    """All clients and the classes they share."""

    clients: tuple[ClientData, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.clients:
            raise UserError("the data source gave no clients: check its filters and its client column")
        repeated = [name for name, times in Counter(c.id for c in self.clients).items() if times > 1]
        if repeated:
            raise UserError(f"client ids must be unique, these are not: {', '.join(sorted(repeated))}")
        for client in self.clients:
            for split in ("train", "validation", "test"):
                if not len(getattr(client, split)):
                    raise UserError(
                        f"client '{client.id}' has no {split} examples: every client needs at least one in "
                        f"each split; drop the client or change the split sizes"
                    )

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(client.id for client in self.clients)


class Source(ABC):
    """Where clients come from. Implementations are frozen dataclasses named by ``class_path``."""

    @abstractmethod
    def load(self, seed: int) -> FederatedData:
        """Read the data and split it; the same seed gives the same splits."""

    def problems(self) -> Sequence[str]:
        """What can be seen to be wrong without reading the data, one line each."""
        return ()
