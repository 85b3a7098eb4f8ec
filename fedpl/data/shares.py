"""Rows dealt to made-up clients by shares: at random, by class, few classes each; equal or unequal."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from fedpl.data.duplicates import near_duplicate_groups
from fedpl.data.partition import Partition, Rows
from fedpl.data.wording import counted, listed
from fedpl.errors import UserError
from fedpl.randomness import derive_seed


class Shares(Partition):
    """Rows dealt by a table of shares: of each class so much to each client. Every row goes to one client.

    Near-duplicates of one class go to one client, whole, so that nobody is tested on what others are trained
    on. A declared split is dealt like the others, so that a client's test rows are as its training rows.
    """

    clients: int

    @abstractmethod
    def shares(self, classes: int, seed: int) -> np.ndarray:
        """Shares of each class [classes, clients], not negative; each row sums to 1."""

    @property
    def names(self) -> tuple[str, ...]:
        width = len(str(self.clients - 1))
        return tuple(f"client-{number:0{width}}" for number in range(self.clients))

    def problems(self) -> list[str]:
        least = self.clients >= 1
        return [] if least else [f"data.partition.clients: at least 1, got {self.clients}"]

    def owners(self, rows: Rows, near_duplicates: float, seed: int) -> Sequence[str]:
        labels = rows.labels if self.labelled else [""] * len(rows.labels)
        classes = {name: place for place, name in enumerate(sorted(set(labels)))}
        bounds = np.cumsum(self.shares(len(classes), seed), axis=1)
        ties = (
            near_duplicate_groups(rows.texts, near_duplicates).tolist()
            if near_duplicates
            else range(len(rows.texts))
        )
        units: dict[tuple[str, str], dict[int, list[int]]] = {}
        for place, stratum in enumerate(zip(rows.splits, labels, strict=True)):
            units.setdefault(stratum, {}).setdefault(ties[place], []).append(place)
        names = self.names
        found = [""] * len(rows.texts)
        for (split, label), tied in units.items():
            stream = np.random.default_rng(derive_seed(seed, "partition rows", client=f"{split}/{label}"))
            own = list(tied.values())
            order = [own[place] for place in stream.permutation(len(own)).tolist()]
            sizes = np.array([len(unit) for unit in order])
            middles = (
                np.cumsum(sizes) - sizes / 2
            ) / sizes.sum()  # rounds each client's share to the nearest
            takers = np.searchsorted(bounds[classes[label]], middles).clip(max=self.clients - 1)
            for unit, taker in zip(order, takers.tolist(), strict=True):
                for place in unit:
                    found[place] = names[taker]
        self.check(found, labels)
        return found

    def check(self, owners: Sequence[str], labels: Sequence[str]) -> None:
        """Refuse what has come out otherwise than promised.

        Raises:
            UserError: Naming the clients.
        """

    def note(self, owners: Sequence[str], labels: Sequence[str]) -> Sequence[str]:
        own: dict[str, list[str]] = {}
        for owner, label in zip(owners, labels, strict=True):
            own.setdefault(owner, []).append(label)
        sizes = _span(len(found) for found in own.values())
        kinds = _span(len(set(found)) for found in own.values())
        classes = f" and {kinds} classes" if any(labels) else ""
        return [f"partition: {self}: {counted(len(own), 'client')} with {sizes} rows{classes} each"]


@dataclass(frozen=True)
class Iid(Shares):
    """Rows dealt at random, whatever their class.

    Attributes:
        clients: How many.
        sizes: equal; log_normal: client j's share ∝ exp(spread · zⱼ), zⱼ standard normal; power_law: client
            j's share ∝ (j + 1)^−spread.
        spread: How unequal sizes are; 0: not at all.
    """

    clients: int = 10
    sizes: Literal["equal", "log_normal", "power_law"] = "equal"
    spread: float = 1.0

    def problems(self) -> list[str]:
        fits = 0 <= self.spread < np.inf
        return super().problems() + (
            [] if fits else [f"data.partition.spread: must not be negative, got {self.spread}"]
        )

    def shares(self, classes: int, seed: int) -> np.ndarray:
        match self.sizes:
            case "equal":
                logs = np.zeros(self.clients)
            case "power_law":
                logs = -self.spread * np.log(np.arange(1, self.clients + 1))
            case _:
                logs = self.spread * np.array(
                    [_stream(seed, client).standard_normal() for client in range(self.clients)]
                )
        return np.tile(_normalised(logs), (classes, 1))


@dataclass(frozen=True)
class Dirichlet(Shares):
    """Label skew of Yurochkin et al. 2019: of each class k, client j gets a share pₖⱼ with pₖ ~ Dir(α, …, α).

    Clients come out unequal in size too. (Hsu et al. 2019 draw a distribution over classes for each client
    instead, at equal sizes.)

    Attributes:
        clients: How many.
        alpha: Concentration α: small, and a class is with few clients; large, and all have the same.
    """

    labelled: ClassVar[bool] = True
    clients: int = 10
    alpha: float = 0.5

    def problems(self) -> list[str]:
        fits = 0 < self.alpha < np.inf
        return super().problems() + (
            [] if fits else [f"data.partition.alpha: must be positive, got {self.alpha}"]
        )

    def shares(self, classes: int, seed: int) -> np.ndarray:
        # Gamma draws, client by client, divided by their sum are a Dirichlet draw. As logarithms, since a
        # small alpha's lie below the smallest number: Γ(α) has the distribution of Γ(α + 1) · U^(1/α).
        logs = np.empty((classes, self.clients))
        for client in range(self.clients):
            stream = _stream(seed, client)
            draws = stream.random(classes), stream.standard_gamma(self.alpha + 1, classes)
            logs[:, client] = np.log(draws[1]) + np.log1p(-draws[0]) / self.alpha
        return _normalised(logs)


@dataclass(frozen=True)
class Pathological(Shares):
    """Each client has rows of a few classes alone (#C = k of Li et al. 2022, after McMahan et al. 2017).

    Client after client draws among the classes that the fewest have; a class is dealt evenly to those who
    drew it. (McMahan et al. deal shards of sorted rows, which may hold two classes each.)

    Attributes:
        clients: How many.
        classes: Classes a client, exactly.
    """

    labelled: ClassVar[bool] = True
    clients: int = 10
    classes: int = 2

    def problems(self) -> list[str]:
        fits = self.classes >= 1
        return super().problems() + (
            [] if fits else [f"data.partition.classes: at least 1, got {self.classes}"]
        )

    def shares(self, classes: int, seed: int) -> np.ndarray:
        if self.classes > classes:
            raise UserError(
                f"data.partition.classes: {self.classes} a client, but the rows have {classes}; ask for fewer"
            )
        if self.clients * self.classes < classes:
            raise UserError(
                f"data.partition: {self.classes} classes each for {counted(self.clients, 'client')} leave "
                f"some of {classes} classes to nobody; take {-(-classes // self.classes)} clients or more"
            )
        held = np.zeros((classes, self.clients))
        for client in range(self.clients):
            rarest = np.lexsort((_stream(seed, client).random(classes), held.sum(axis=1)))
            held[rarest[: self.classes], client] = 1
        return held / held.sum(axis=1, keepdims=True)

    def check(self, owners: Sequence[str], labels: Sequence[str]) -> None:
        own: dict[str, set[str]] = {name: set() for name in self.names}
        for owner, label in zip(owners, labels, strict=True):
            own[owner].add(label)
        short = [f"'{name}' ({len(found)})" for name, found in own.items() if len(found) < self.classes]
        if short:
            raise UserError(
                f"data.partition: Pathological: rows do not suffice for {self.classes} classes a client, "
                f"{len(short)} of {counted(self.clients, 'client')} have fewer: {listed(short)}; take fewer "
                f"clients or classes"
            )


def _stream(seed: int, client: int) -> np.random.Generator:
    """A client's own random numbers, whoever else there is."""
    return np.random.default_rng(derive_seed(seed, "partition", client=str(client)))


def _normalised(logs: np.ndarray) -> np.ndarray:
    """Shares from logarithms of weights, along the last axis."""
    weights = np.exp(logs - logs.max(axis=-1, keepdims=True))
    shares: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def _span(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"
