"""Which examples a step sees."""

from collections.abc import Sequence

import torch
from torch.utils.data import DataLoader

from fedpl.tasks.examples import Examples


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


def training_batches(examples: Examples, order: Sequence[Sequence[int]]) -> DataLoader:
    """A round's batches, from `batch_order`."""
    # Workers would be forked after JAX started its threads, and examples are in memory anyway.
    return DataLoader(
        examples,
        batch_sampler=[list(batch) for batch in order],
        collate_fn=lambda chosen: (examples.collate(chosen), examples.weights(chosen)),
        num_workers=0,
    )


def evaluation_order(examples: Examples, batch_size: int) -> list[list[int]]:
    """Every example once, those of similar length together so that little is padded."""
    order = sorted(range(len(examples)), key=lambda i: (examples.lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
