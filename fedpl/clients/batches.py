"""Texts as token batches: tokenised once, padded to the longest of each batch."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerBase

from fedpl.data import Split


class Batch(TypedDict):
    """One padded batch."""

    input_ids: Int[Tensor, "batch length"]
    attention_mask: Int[Tensor, "batch length"]
    labels: Int[Tensor, "batch"]


class Tokens(Dataset):
    """A split's texts as token ids."""

    def __init__(self, split: Split, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        encoded = tokenizer(list(split.texts), truncation=True, max_length=max_length)["input_ids"]
        self.ids = [torch.tensor(ids) for ids in encoded]
        self.labels = torch.tensor(split.labels)
        self.pad = int(tokenizer.pad_token_id)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, indices: Sequence[int]) -> Batch:
        """Pad the examples at these places to the longest among them."""
        ids = [self.ids[i] for i in indices]
        mask = [torch.ones_like(row) for row in ids]
        pad = torch.nn.utils.rnn.pad_sequence
        return Batch(
            input_ids=pad(ids, batch_first=True, padding_value=self.pad),
            attention_mask=pad(mask, batch_first=True),
            labels=self.labels[list(indices)],
        )


def batch_order(
    examples: int, batch_size: int, epochs: int, seed: int, max_steps: int | None = None
) -> list[list[int]]:
    """Which examples each step of a round sees: shuffled anew in each epoch, by the seed alone.

    Args:
        examples: Number of examples.
        batch_size: Examples per step; an epoch's last batch may be smaller.
        epochs: Passes over the examples.
        seed: Seed of the order.
        max_steps: Steps after which the round ends, if the epochs do not end it before.
    """
    stream = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(examples, generator=stream).tolist() for _ in range(epochs)]
    batches = [order[i : i + batch_size] for order in shuffled for i in range(0, examples, batch_size)]
    return batches[:max_steps]


def training_batches(tokens: Tokens, order: Sequence[Sequence[int]]) -> DataLoader:
    """A round's batches, from `batch_order`."""
    # Workers would be forked after JAX started its threads, and tokens are in memory anyway.
    return DataLoader(
        tokens, batch_sampler=[list(batch) for batch in order], collate_fn=tokens.collate, num_workers=0
    )


def evaluation_batches(tokens: Tokens, batch_size: int) -> Iterator[Batch]:
    """Every example once, texts of similar length together so that little is padded."""
    order = sorted(range(len(tokens)), key=lambda i: (len(tokens.ids[i]), i))
    for start in range(0, len(order), batch_size):
        yield tokens.collate(order[start : start + batch_size])
