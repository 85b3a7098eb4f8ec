"""Rows of many clients as columns: a step of thousands is chosen and moved by a few array operations."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedpl.tasks.examples import Examples
from fedpl.tasks.pixels import Held, Pictures, Pixels


class Row(NamedTuple):
    """One example of one client, on its way through the model.

    Attributes:
        client: The client's place in the stack.
        examples: The split that holds it.
        example: The example's place in it.
        weight: Its share of the client's mean loss.
        key: Key of its dropout.
    """

    client: int
    examples: Examples
    example: int
    weight: float = 1.0
    key: int = 0


class Texts:
    """The examples of several splits, one after another.

    Args:
        splits: At least one; each is held once, however often it is given.

    Attributes:
        splits: Without repetitions.
        first: Place of each split's first example.
        tokens: Of all examples.
        begin: Place of each example's first token.
        lengths: Tokens of each example.
        mass: Targets of each example.
        targets: What is right for each example.
        pad: What fills rows up.
        marks: Like tokens, whether each is learned; None: the model is not told.
        types: Like tokens, which text of a pair each belongs to; None: the model is not told.
        pixels: Where the examples lie, if they are images, which have no tokens here; None: they are texts.
        slots: Which image there each example is.
    """

    def __init__(self, splits: Iterable[Examples]) -> None:
        self.splits = tuple(dict.fromkeys(splits))
        self._places = {split: place for place, split in enumerate(self.splits)}
        sizes = np.array([len(split) for split in self.splits])
        self.first = np.cumsum(sizes) - sizes
        self.tokens = np.concatenate([split.tokens.numpy() for split in self.splits])
        self.lengths = np.concatenate([np.array(split.lengths, np.int64) for split in self.splits])
        self.begin = np.cumsum(self.lengths) - self.lengths
        self.mass = np.concatenate([np.array(split.mass, np.float64) for split in self.splits])
        self.targets: Tensor = torch.cat([split.targets for split in self.splits])
        self.pad = self.splits[0].pad
        self.marks = _joined(split.marks for split in self.splits)
        self.types = _joined(split.types for split in self.splits)
        images = [split for split in self.splits if isinstance(split, Pictures)]
        self.pixels: Pixels | Held | None = images[0].pixels if images else None
        self.slots = np.concatenate([np.empty(0, np.int64), *(split.slots for split in images)])

    def places(self, splits: Iterable[Examples]) -> Int[np.ndarray, "splits"]:
        """Where these splits are among `splits`."""
        return np.array([self._places[split] for split in splits], np.int64)


def _joined(columns: Iterable[Tensor | None]) -> np.ndarray | None:
    """What there is of the splits' tokens; a split without it is one without tokens."""
    found = [column.numpy() for column in columns if column is not None]
    return np.concatenate(found) if found else None


@dataclass(frozen=True, eq=False)
class Rows(Sequence[Row]):
    """Rows, an array for each of their attributes.

    Attributes:
        texts: What holds the examples.
        client: Each row's client, as a place in the stack.
        split: Which of the splits of `texts` holds its example.
        example: The example's place in the split.
        weight: Its share of its client's mean loss.
        key: Key of its dropout.
    """

    texts: Texts
    client: Int[np.ndarray, "rows"]
    split: Int[np.ndarray, "rows"]
    example: Int[np.ndarray, "rows"]
    weight: Float[np.ndarray, "rows"]
    key: Int[np.ndarray, "rows"]

    @staticmethod
    def of(rows: Sequence[Row]) -> "Rows":
        """Single rows, at least one, as columns."""
        if isinstance(rows, Rows):
            return rows
        client, examples, example, weight, key = zip(*rows, strict=True)
        texts = Texts(examples)
        columns = np.array(client), texts.places(examples), np.array(example)
        return Rows(texts, *columns, np.array(weight, np.float64), np.array(key, np.int32))

    @staticmethod
    def chosen(
        texts: Texts,
        splits: Sequence[Examples],
        examples: Sequence[Sequence[int]],
    ) -> "Rows":
        """For each client some examples of its split, in that order, weighted by their targets; keys are 0.

        Args:
            texts: Holds the splits.
            splits: One per client.
            examples: Places in the split, at least one per client.
        """
        sizes = [len(own) for own in examples]
        client = np.repeat(np.arange(len(sizes)), sizes)
        split = texts.places(splits)[client]
        example = np.concatenate([np.asarray(own, np.int64) for own in examples])
        mass = texts.mass[texts.first[split] + example]
        weight = mass / np.bincount(client, mass)[client]
        return Rows(texts, client, split, example, weight, np.zeros(len(client), np.int32))

    @property
    def place(self) -> Int[np.ndarray, "rows"]:
        """Each row's example among all of `texts`."""
        return self.texts.first[self.split] + self.example

    def take(self, which: "slice | Int[np.ndarray, 'chosen']") -> "Rows":
        """Some of the rows."""
        columns = (self.client, self.split, self.example, self.weight, self.key)
        return Rows(self.texts, *(column[which] for column in columns))

    def __len__(self) -> int:
        return len(self.client)

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "Rows": ...
    def __getitem__(self, place: int | slice) -> "Row | Rows":
        if isinstance(place, slice):
            return self.take(place)
        split = self.texts.splits[self.split[place]]
        example, weight, key = self.example[place], self.weight[place], self.key[place]
        return Row(int(self.client[place]), split, int(example), float(weight), int(key))
