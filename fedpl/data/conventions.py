"""What clients mean by a class: conventions by group, and labels that are wrong."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedpl.data.wording import counted, some
from fedpl.errors import UserError
from fedpl.randomness import derive_seed


class Convention(ABC):
    """What groups of clients call the classes, in all of their splits. Named by ``class_path``.

    The groups are the clients' true groups; they are of equal size or differ by one, and the first keeps the
    classes as they are written.
    """

    plain: ClassVar[bool] = False

    @abstractmethod
    def maps(self, classes: Sequence[str], seed: int) -> Sequence[Sequence[int]]:
        """What each group calls each class: its index, by group and by class as written.

        Raises:
            UserError: If the classes do not allow it.
        """

    def problems(self) -> Sequence[str]:
        """What can be seen to be wrong without reading the data, one line each."""
        return ()


@dataclass(frozen=True)
class AsWritten(Convention):
    """Labels as the table has them."""

    plain: ClassVar[bool] = True

    def maps(self, classes: Sequence[str], seed: int) -> Sequence[Sequence[int]]:
        return [range(len(classes))]


class _Groups(Convention):
    groups: int

    def problems(self) -> Sequence[str]:
        return [] if self.groups >= 2 else [f"data.convention.groups: at least 2, got {self.groups}"]

    def _need(self, most: int, classes: int) -> None:
        if self.groups > most:
            raise UserError(
                f"data.convention: {self}: {classes} classes allow at most {most} different conventions"
            )


@dataclass(frozen=True)
class Rotation(_Groups):
    """Group g calls class c the g-th after it, in sorted order and round in a circle.

    Attributes:
        groups: How many conventions.
    """

    groups: int = 2

    def maps(self, classes: Sequence[str], seed: int) -> Sequence[Sequence[int]]:
        n = len(classes)
        self._need(n, n)
        return [[(c + group) % n for c in range(n)] for group in range(self.groups)]


@dataclass(frozen=True)
class Permutation(_Groups):
    """Each group has an order of the classes of its own, drawn by the seed.

    Attributes:
        groups: How many conventions.
    """

    groups: int = 2

    def maps(self, classes: Sequence[str], seed: int) -> Sequence[Sequence[int]]:
        n = len(classes)
        self._need(math.factorial(min(n, 20)), n)
        stream = np.random.default_rng(derive_seed(seed, "convention"))
        found = [tuple(range(n))]
        while len(found) < self.groups:
            drawn = tuple(stream.permutation(n).tolist())
            found += [] if drawn in found else [drawn]
        return found


@dataclass(frozen=True)
class Swap(Convention):
    """Group g exchanges the g-th pair of classes.

    Attributes:
        pairs: Pairs of classes, one for each group but the first: ``[[negative, positive]]``.
    """

    pairs: tuple[tuple[str, ...], ...] = ()

    def problems(self) -> Sequence[str]:
        different = {frozenset(pair) for pair in self.pairs}
        fits = self.pairs and len(different) == len(self.pairs) and all(len(one) == 2 for one in different)
        return (
            []
            if fits
            else ["data.convention.pairs: expected pairs of two classes, like [[good, bad]], each once"]
        )

    def maps(self, classes: Sequence[str], seed: int) -> Sequence[Sequence[int]]:
        unknown = sorted({name for pair in self.pairs for name in pair} - {*classes})
        if unknown:
            raise UserError(f"data.convention.pairs: no class {some(unknown)}; there are {some(classes)}")
        found = [list(range(len(classes)))]
        for pair in self.pairs:
            one, other = (classes.index(name) for name in pair)
            swapped = list(found[0])
            swapped[one], swapped[other] = other, one
            found.append(swapped)
        return found


@dataclass(frozen=True)
class LabelNoise:
    """Training labels that are replaced by another class, drawn evenly; validation and test stay clean.

    Attributes:
        share: Of a noisy client's training labels.
        clients: Share of the clients that are noisy, rounded, at least one unless it is 0.
    """

    share: float = 0.0
    clients: float = 1.0

    def problems(self) -> list[str]:
        return [
            f"data.noise.{name}: must lie in [0, 1], got {value}"
            for name, value in (("share", self.share), ("clients", self.clients))
            if not 0 <= value <= 1
        ]

    def noisy(self, clients: Sequence[str], seed: int) -> set[str]:
        """Which clients are."""
        number = max(1, round(self.clients * len(clients))) if self.share and self.clients else 0
        return {*_shuffled(clients, "noise", seed)[:number]}

    def note(self, noisy: set[str], clients: int) -> Sequence[str]:
        """What the first lines of a run say about it."""
        if not noisy:
            return ()
        whom = f"{len(noisy)} of {counted(clients, 'client')}"
        return [f"noise: {self.share:.0%} of the training labels of {whom} replaced: {some(sorted(noisy))}"]

    def replaced(self, labels: Sequence[int], classes: int, seed: int, client: str) -> tuple[int, ...]:
        """A noisy client's training labels.

        Raises:
            UserError: If there is no other class.
        """
        if classes < 2:
            raise UserError("data.noise: there is one class alone, and no other to replace it by")
        stream = np.random.default_rng(derive_seed(seed, "noise", client=client))
        found = np.array(labels, dtype=np.int64)
        hit = stream.permutation(len(found))[: round(self.share * len(found))]
        found[hit] = (found[hit] + stream.integers(1, classes, len(hit))) % classes
        return tuple(found.tolist())


def groups_of(clients: Sequence[str], groups: int, seed: int) -> dict[str, int]:
    """Clients dealt evenly to groups; in what order they are named does not matter.

    Raises:
        UserError: If there are fewer clients than groups.
    """
    if max(1, len(clients)) < groups:
        raise UserError(
            f"data.convention: {groups} groups for {counted(len(clients), 'client')}; take fewer groups"
        )
    order = _shuffled(clients, "convention", seed)
    return {client: place % groups for place, client in enumerate(order)}


def _shuffled(clients: Sequence[str], stage: str, seed: int) -> list[str]:
    return sorted(clients, key=lambda client: (derive_seed(seed, stage, client=client), client))
