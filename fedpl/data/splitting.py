"""Which rows of a client are for training, validation and test, and whether they are enough."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from fedpl.data.duplicates import near_duplicate_groups
from fedpl.data.wording import counted, listed, readable
from fedpl.errors import UserError

SPLITS = ("train", "validation", "test")
_ALIASES = {"val": "validation", "valid": "validation", "dev": "validation"}
SmallClients: TypeAlias = Literal["error", "drop", "train_only"]


@dataclass(frozen=True)
class Splitting:
    """How rows without a split column are split, client by client.

    Attributes:
        validation: Fraction of a client's rows for validation.
        test: Fraction of a client's rows for the test.
        near_duplicates: Jaccard similarity of three-word shingles from which two texts of a client count as
            one and stay in the same split; 0 switches the check off.
        max_train: Keep at most this many training rows per client, drawn by the seed so that each label keeps
            its share; 0 keeps all.
        shots: Keep at most this many training rows of each class per client, drawn by the seed; 0 keeps all.
        max_validation: Likewise for validation rows, as ``max_train``.
        max_test: Likewise for test rows.
    """

    validation: float = 0.2
    test: float = 0.2
    near_duplicates: float = 0.5
    max_train: int = 0
    shots: int = 0
    max_validation: int = 0
    max_test: int = 0

    @property
    def most(self) -> dict[str, int]:
        """How many rows to keep at most, by split; 0 keeps all."""
        return {"train": self.max_train, "validation": self.max_validation, "test": self.max_test}

    @property
    def train(self) -> float:
        """Fraction of a client's rows for training."""
        return 1 - self.validation - self.test

    def problems(self) -> list[str]:
        found = []
        if min(self.validation, self.test) <= 0 or self.validation + self.test >= 1:
            found.append(
                f"data.splitting: validation and test must be positive and sum to less than 1, "
                f"got {self.validation} and {self.test}"
            )
        if not 0 <= self.near_duplicates <= 1:
            found.append(f"data.splitting.near_duplicates: must lie in [0, 1], got {self.near_duplicates}")
        found += [
            f"data.splitting.{name}: must not be negative, got {most}"
            for name, most in (
                *((f"max_{split}", n) for split, n in self.most.items()),
                ("shots", self.shots),
            )
            if most < 0
        ]
        return found


class Dealt(NamedTuple):
    """A client's rows by split.

    Attributes:
        rows: How many it has.
        places: Places of the rows, by split.
        groups: Into how many groups near-duplicates tie them; None where their split is declared.
    """

    rows: int
    places: dict[str, list[int]]
    groups: int | None = None

    @property
    def tied(self) -> bool:
        """Whether it may be near-duplicates that leave a split empty."""
        return self.groups is not None and self.groups < self.rows >= len(SPLITS)

    def lack(self, least: int) -> str:
        """What it has too little of, in words; empty: it has enough.

        Args:
            least: Rows that a client needs.
        """
        empty = [split for split in SPLITS if not self.places[split]]
        if self.rows >= least and not empty:
            return ""
        ties = f" in {counted(self.groups or 0, 'group')} of near-duplicates" if self.tied else ""
        none = f", none for {' and '.join(empty)}" if empty else ""
        return f"{counted(self.rows, 'row')}{ties}{none}"

    def train_only(self, least: int) -> "Dealt":
        """A small client's rows for training alone; rows that are declared for another split stay there.

        Args:
            least: Rows below which a client is not scored at all.
        """
        if self.groups is not None:
            return self._replace(places={"train": list(range(self.rows)), "validation": [], "test": []})
        if self.rows < least:
            return self._replace(places={"train": self.places["train"], "validation": [], "test": []})
        return self


def split_of(name: str) -> str | None:
    """The split that a word means, in upper or lower case; None: it means none."""
    plain = name.strip().lower()
    split = _ALIASES.get(plain, plain)
    return split if split in SPLITS else None


def declared(splits: Sequence[str]) -> Dealt:
    """Rows as a split column has them."""
    places: dict[str, list[int]] = {split: [] for split in SPLITS}
    for i, split in enumerate(splits):
        places[split].append(i)
    return Dealt(len(splits), places)


def drawn(texts: Sequence[str], splitting: Splitting, seed: int, times: Sequence[float] = ()) -> Dealt:
    """Deal groups of near-duplicates out, whole, until test and validation have their fractions.

    Args:
        texts: Of all rows.
        splitting: The fractions.
        seed: Of the order.
        times: When each row was: the latest groups are for the test, by their last row, those before them for
            validation; groups of one time are drawn. Empty: all are drawn.
    """
    n = len(texts)
    threshold = splitting.near_duplicates
    groups = near_duplicate_groups(texts, threshold) if threshold else np.arange(n)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(i)
    order = [members[group] for group in np.random.default_rng(seed).permutation(len(members)).tolist()]
    if times:
        order.sort(key=lambda group: -max(times[i] for i in group))
    want = {"test": round(n * splitting.test), "validation": round(n * splitting.validation)}
    places = _deal(order, want, over=True)
    if (
        len(places["train"]) < splitting.train * n / 2 and not times
    ):  # a large group has gone to a small split
        fitting = _deal(order, want, over=False)
        wanted = ("train", *(name for name in want if getattr(splitting, name)))
        places = fitting if all(fitting[name] for name in wanted) else places
    return Dealt(n, places, len(members))


def beside(
    texts: Sequence[str],
    held: Sequence[bool],
    splitting: Splitting,
    seed: int,
    times: Sequence[float] = (),
) -> Dealt:
    """As `drawn`, where the test's rows are given: the others are dealt to training and validation.

    Args:
        texts: Of all rows.
        held: Which are the test's.
        splitting: Its fraction for the test is not read.
        seed: Of the order.
        times: As of `drawn`.
    """
    rest = [i for i, own in enumerate(held) if not own]
    dealt = drawn(
        [texts[i] for i in rest],
        replace(splitting, test=0.0),
        seed,
        [times[i] for i in rest] if times else (),
    )
    places = {name: [rest[i] for i in own] for name, own in dealt.places.items()}
    return Dealt(len(texts), places | {"test": [i for i, own in enumerate(held) if own]})


def _deal(order: Sequence[list[int]], want: dict[str, int], over: bool) -> dict[str, list[int]]:
    """Each group to the first split that still wants rows, `over` or within what it wants, else to train."""
    places: dict[str, list[int]] = {split: [] for split in SPLITS}
    for group in order:
        least = 1 if over else len(group)
        split = next((name for name, size in want.items() if len(places[name]) + least <= size), "train")
        places[split] += group
    return places


def uneven(dealt: dict[str, Dealt], splitting: Splitting) -> list[str]:
    """What is to be said about clients whose near-duplicates, kept together, leave little for training."""
    short = [
        f"'{readable(client)}' ({len(own.places['train'])} of {counted(own.rows, 'row')})"
        for client, own in dealt.items()
        if own.groups is not None and len(own.places["train"]) < splitting.train * own.rows / 2
    ]
    if not short:
        return []
    whom = counted(len(short), "client")
    return [f"warning: near-duplicates leave {whom} with few rows for training: {listed(short, 5)}"]


def settled(dealt: dict[str, Dealt], least: int, small: SmallClients) -> tuple[dict[str, Dealt], list[str]]:
    """What becomes of clients that are too small, and what is to be said about it.

    Args:
        dealt: By client.
        least: Rows that a client needs, ``data.min_examples``.
        small: ``data.small_clients``.

    Raises:
        UserError: Naming all of them, if they are an error, or cannot even be trained.
    """
    lacking = {client: lack for client, own in dealt.items() if (lack := own.lack(least))}
    if not lacking:
        return dealt, []
    if small == "drop":
        kept = {client: own for client, own in dealt.items() if client not in lacking}
        return kept, [f"{_named(lacking, dealt)} left out as too small: {_listed(lacking)}"]
    if small == "train_only":
        kept = {c: own.train_only(least) if c in lacking else own for c, own in dealt.items()}
        idle = {client: lacking[client] for client in lacking if not kept[client].places["train"]}
        if idle:
            raise UserError(
                f"data.small_clients: train_only: {_named(idle, dealt)} without a row to train on: "
                f"{_listed(idle)}; give them some, or leave them out with drop"
            )
        return kept, [
            f"{_named(lacking, dealt)} too small, trained and not scored on empty splits: {_listed(lacking)}"
        ]
    tied = any(dealt[client].tied for client in lacking)
    raise UserError(
        f"{_named(lacking, dealt)} too small: {_listed(lacking)}; expected {counted(least, 'row')} or more "
        f"(data.min_examples) and at least one for each split; leave these clients out with "
        f"--data.small_clients drop, or train and do not score them with train_only"
        + ("; texts of one template are kept apart with --data.splitting.near_duplicates 0" if tied else "")
    )


def _named(some: dict[str, str], all: dict[str, Dealt]) -> str:
    return f"{len(some)} of {counted(len(all), 'client')} {'is' if len(some) == 1 else 'are'}"


def _listed(lacking: dict[str, str]) -> str:
    return listed(f"'{readable(client)}' ({lack})" for client, lack in lacking.items())
