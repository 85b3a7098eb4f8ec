"""A client's split as tensors: encoded once, padded to the longest of each batch."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from fedpl.data.duplicates import near_duplicates


class Batch(NamedTuple):
    """Some examples, padded.

    Attributes:
        inputs: The model's arguments by name, a row for each example.
        targets: What is right for each row.
    """

    inputs: dict[str, Tensor]
    targets: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            {name: tensor.to(device) for name, tensor in self.inputs.items()}, self.targets.to(device)
        )


class Sequences(NamedTuple):
    """Token ids of examples, in memory or in a file that is mapped; no copies for a client.

    Attributes:
        flat: Where they lie, with those of others; a token that is marked lies there as its complement.
        begin: Place of each example's first token.
        lengths: Tokens of each example.
        cut: Whether each was cut to fit.
    """

    flat: Int32[np.ndarray, "all"]
    begin: Int[np.ndarray, "examples"]
    lengths: Int[np.ndarray, "examples"]
    cut: Bool[np.ndarray, "examples"]

    @staticmethod
    def of(
        ids: Sequence[Sequence[int] | Tensor],
        marks: Sequence[Sequence[int]] | None = None,
        cut: Sequence[bool] | None = None,
    ) -> "Sequences":
        """From a list for each example.

        Args:
            ids: Its tokens.
            marks: Which of them are marked; None: none.
            cut: Whether it was cut; None: none was.
        """
        lengths = np.array([len(row) for row in ids], np.int64)
        flat = _flat(ids, lengths)
        if marks is not None:
            flat ^= -_flat(marks, lengths)
        cuts = np.zeros(len(ids), bool) if cut is None else np.array(cut, bool)
        return Sequences(flat, np.cumsum(lengths) - lengths, lengths, cuts)

    @property
    def packed(self) -> Int32[np.ndarray, "tokens"]:
        """The examples' own, one after another: a copy."""
        return self.flat[ranges(self.begin, self.lengths)]

    @property
    def marked(self) -> Int[np.ndarray, "examples"]:
        """How many tokens of each example are marked."""
        upto = np.cumsum(np.concatenate([[False], self.packed < 0]))
        ends = np.cumsum(self.lengths)
        return upto[ends] - upto[ends - self.lengths]


class Examples(Dataset):
    """Sequences of different lengths with their targets.

    Args:
        sequences: Token ids of each example.
        targets: What is right for each; the first axis is the examples.
        pad: What fills rows up; masked by position, never by value.
        mass: Targets of each example: its share of a step's loss follows from it. None: one each.
        marked: What the marks of tokens say: which are learned, or which belong to the second text of a pair;
            None: the model is not told.

    Attributes:
        lengths: Tokens of each example.
        cut: How many of the examples were cut to fit.
    """

    def __init__(
        self,
        sequences: Sequences,
        targets: Tensor,
        pad: int,
        mass: Sequence[float] | None = None,
        marked: Literal["learned", "token_type_ids"] | None = None,
    ) -> None:
        self.sequences = sequences
        self.targets = targets
        self.pad = pad
        self.lengths = tuple(sequences.lengths.tolist())
        self.mass = tuple(mass) if mass is not None else (1.0,) * len(self.lengths)
        self.marked = marked
        self.cut = int(sequences.cut.sum())

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> int:
        return index

    @property
    def tokens(self) -> Int[Tensor, "tokens"]:
        """All examples' token ids, one after another: a copy."""
        return _tokens(self.sequences.packed)

    @property
    def marks(self) -> Bool[Tensor, "tokens"] | None:
        """Like `tokens`, whether each is learned; None: the model is not told."""
        return torch.from_numpy(self.sequences.packed < 0) if self.marked == "learned" else None

    @property
    def types(self) -> Int[Tensor, "tokens"] | None:
        """Like `tokens`, which text of a pair each belongs to; None: the model is not told."""
        told = self.marked == "token_type_ids"
        return torch.from_numpy((self.sequences.packed < 0).astype(np.int64)) if told else None

    @property
    def ids(self) -> tuple[Int[Tensor, "_"], ...]:
        """Token ids of each example: a copy."""
        return self.tokens.split(self.lengths)

    def alike(self) -> Sequence[int]:
        """Number of each example's group of near-duplicates, by token ids (`fedpl.data.duplicates`)."""
        return near_duplicates(row.tolist() for row in self.ids).tolist()

    def weights(self, chosen: Sequence[int]) -> list[float]:
        """Each example's share of the mean over the targets of these examples."""
        total = sum(self.mass[i] for i in chosen)
        return [self.mass[i] / total for i in chosen]

    def collate(self, chosen: Sequence[int]) -> Batch:
        """The examples at these places, padded to the longest among them."""
        flat, begin = self.sequences.flat, self.sequences.begin
        rows = [flat[begin[i] : begin[i] + self.lengths[i]] for i in chosen]
        inputs = pad_rows([_tokens(row) for row in rows], self.pad)
        if self.marked is not None:
            marks = [torch.from_numpy(row < 0) for row in rows]
            padded = pad_sequence(marks, batch_first=True, padding_value=False)
            inputs[self.marked] = padded if self.marked == "learned" else padded.long()
        return Batch(inputs, self.targets[list(chosen)])


def _flat(
    rows: Sequence[Sequence[int] | Tensor], lengths: Int[np.ndarray, "rows"]
) -> Int32[np.ndarray, "numbers"]:
    return np.fromiter((number for row in rows for number in row), np.int32, int(lengths.sum()))


def _tokens(packed: Int32[np.ndarray, "n"]) -> Int[Tensor, "n"]:
    """Token ids without their marks."""
    return torch.from_numpy((packed ^ (packed >> 31)).astype(np.int64))


def ranges(starts: Int[np.ndarray, "n"], sizes: Int[np.ndarray, "n"]) -> Int[np.ndarray, "total"]:
    """start, start + 1, ... of each range, one range after another."""
    return np.arange(sizes.sum()) + np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)


def pad_rows(ids: Sequence[Int[Tensor, "_"]], pad: int, multiple: int = 1) -> dict[str, Tensor]:
    """Token ids as one tensor with its mask.

    Args:
        ids: A row for each example.
        pad: What fills rows up.
        multiple: The length is rounded up to a multiple of this.
    """
    input_ids = pad_sequence(list(ids), batch_first=True, padding_value=pad)
    input_ids = F.pad(input_ids, (0, -input_ids.shape[1] % multiple), value=pad)
    lengths = torch.tensor([len(row) for row in ids])
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    return {"input_ids": input_ids, "attention_mask": mask}
