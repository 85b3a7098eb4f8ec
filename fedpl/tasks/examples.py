"""A client's split as tensors: encoded once, padded to the longest of each batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset


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


class Examples(Dataset):
    """Sequences of different lengths with their targets.

    Args:
        ids: Token ids of each example.
        targets: What is right for each; the first axis is the examples.
        pad: What fills rows up; masked by position, never by value.
        mass: Targets of each example: its share of a step's loss follows from it. None: one each.
        learned: Which of each example's tokens are learned, by position; None: the model is not told.
        cut: How many of the examples were cut to fit.
        types: Which text of a pair each token belongs to, 0 or 1; None: the model is not told.

    Attributes:
        tokens: All examples' token ids, one after another; `ids` are views of it.
        lengths: Tokens of each example.
        marks: Like `tokens`, whether each is learned; None: the model is not told.
        types: Like `tokens`, which text of a pair each belongs to; None: the model is not told.
    """

    def __init__(
        self,
        ids: Sequence[Int[Tensor, "_"]],
        targets: Tensor,
        pad: int,
        mass: Sequence[float] | None = None,
        learned: Sequence[Bool[Tensor, "_"]] | None = None,
        cut: int = 0,
        types: Sequence[Int[Tensor, "_"]] | None = None,
    ) -> None:
        self.targets = targets
        self.pad = pad
        self.mass = tuple(mass) if mass is not None else (1.0,) * len(ids)
        self.lengths = tuple(map(len, ids))
        self.tokens = torch.cat([torch.empty(0, dtype=torch.long), *ids])
        self.ids = self.tokens.split(self.lengths)
        self.marks = None if learned is None else torch.cat([torch.empty(0, dtype=torch.bool), *learned])
        self.types = None if types is None else torch.cat([torch.empty(0, dtype=torch.long), *types])
        self.cut = cut

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        return index

    def weights(self, chosen: Sequence[int]) -> list[float]:
        """Each example's share of the mean over the targets of these examples."""
        total = sum(self.mass[i] for i in chosen)
        return [self.mass[i] / total for i in chosen]

    def collate(self, chosen: Sequence[int]) -> Batch:
        """The examples at these places, padded to the longest among them."""
        inputs = pad_rows([self.ids[i] for i in chosen], self.pad)
        if self.marks is not None:
            marks = self.marks.split(self.lengths)
            inputs["learned"] = pad_sequence(
                [marks[i] for i in chosen], batch_first=True, padding_value=False
            )
        if self.types is not None:
            types = self.types.split(self.lengths)
            inputs["token_type_ids"] = pad_sequence([types[i] for i in chosen], batch_first=True)
        return Batch(inputs, self.targets[list(chosen)])


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
