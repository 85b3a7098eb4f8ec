"""What a data source hands over: named clients, each with three splits of texts, images or dialogues."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

from fedpl.data.pictures import Picture
from fedpl.data.wording import counted, some
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

    @property
    def said(self) -> Sequence[object]:
        """What each example says, by which repetitions are found."""
        return self.texts

    @property
    def content(self) -> tuple[Any, ...]:
        """All that it holds, as plain values: what a digest of the data is made of."""
        return astuple(self)


@dataclass(frozen=True)
class Images(Split):
    """Images and their class indices; they are decoded when the model is known.

    Attributes:
        texts: What each image is called.
        pictures: Where each lies.
    """

    pictures: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.texts) != len(self.pictures):
            raise ValueError(f"{len(self.texts)} names but {len(self.pictures)} images")

    @property
    def said(self) -> Sequence[object]:
        return tuple(picture.digest for picture in self.pictures)

    @property
    def content(self) -> tuple[Any, ...]:
        return self.texts, self.labels, self.said


@dataclass(frozen=True)
class Pairs(Split):
    """Pairs of texts: a premise and a hypothesis, two questions.

    Attributes:
        texts: The first of each.
        seconds: The second of each.
    """

    seconds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.seconds) not in self._sizes:
            raise ValueError(f"{len(self.texts)} texts but {len(self.seconds)} second ones")

    @property
    def _sizes(self) -> tuple[int, ...]:
        """How many second texts there may be."""
        return (len(self.texts),)

    @property
    def said(self) -> Sequence[object]:
        return tuple(zip(self.texts, self.seconds, strict=True)) if self.seconds else self.texts


@dataclass(frozen=True)
class Rated(Pairs):
    """Texts, or pairs of them, with a number for each.

    Attributes:
        labels: 0 for each: there are no classes.
        seconds: The second text of each; empty: there are none.
        values: The numbers.
    """

    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.texts) != len(self.values):
            raise ValueError(f"{len(self.texts)} texts but {len(self.values)} numbers")

    @property
    def _sizes(self) -> tuple[int, ...]:
        return len(self.texts), 0


class Message(NamedTuple):
    """What somebody says.

    Attributes:
        role: system, user or assistant.
        content: The words.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Dialogues(Split):
    """Conversations whose last message is the answer; a prompt with its answer is one of two messages.

    Attributes:
        texts: What each says before its answer.
        labels: Place of the answer among its options; 0 where there are none, -1 where it is not among them.
        messages: Each from its beginning to its answer.
        options: Possible answers to each; empty: there are none.
        places: What each is called in messages to people.
    """

    messages: tuple[tuple[Message, ...], ...] = ()
    options: tuple[tuple[str, ...], ...] = ()
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = {len(self.texts), len(self.messages), len(self.places), len(self.options or self.texts)}
        if len(sizes) > 1:
            raise ValueError(f"expected columns of one length, got lengths {sorted(sizes)}")

    @property
    def answers(self) -> tuple[str, ...]:
        """The last message of each."""
        return tuple(own[-1].content for own in self.messages)


@dataclass(frozen=True)
class ClientData:
    """One client's private data; without validation or test examples it is trained and not scored on them.

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
    """All clients and the classes they share.

    Attributes:
        clients: The clients.
        classes: Names of the classes; empty where answers are none.
        notes: What the source has to say about reading them, for the first lines of a run.
    """

    clients: tuple[ClientData, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if not self.clients:
            raise UserError("the data source gave no clients: check its filters and its client column")
        repeated = [name for name, times in Counter(c.id for c in self.clients).items() if times > 1]
        if repeated:
            raise UserError(f"client ids must be unique, these are not: {some(sorted(repeated))}")
        idle = [client.id for client in self.clients if not len(client.train)]
        if idle:
            raise UserError(
                f"{len(idle)} of {counted(len(self.clients), 'client')} without train examples, which cannot "
                f"take part: {some(idle)}; give them some, or leave them out"
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
