"""Rows of many clients as passes through the model: similar lengths together, within a token limit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedpl.tasks.examples import ranges
from fedpl.tasks.pixels import taken
from fedpl.training.dropout import stream_keys
from fedpl.training.partitions import Learner
from fedpl.training.stacked.cutting import Limits, Plan, cut, plan
from fedpl.training.stacked.rows import Row, Rows, Texts

__all__ = ["Limits", "Pass", "Row", "Rows", "Step", "Texts", "cut", "pack", "steps"]


class Pass(NamedTuple):
    """Rows that go through the model together.

    Attributes:
        inputs: The model's arguments by name.
        targets: What is right for each row.
        client: Each row's client, ascending.
        weight: Each row's share of its client's mean loss.
        key: Key of each row's dropout.
        rows: Where the rows came from.
        even: First client and the one after the last, if each of them has equally many rows.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    client: Int[Tensor, "rows"]
    weight: Float[Tensor, "rows"]
    key: Int[Tensor, "rows"]
    rows: Rows
    even: tuple[int, int] | None

    def to(self, device: torch.device) -> "Pass":
        """The same rows on a device."""
        if device.type == "cpu":
            return self
        return self._replace(
            inputs={name: _sent(tensor, device) for name, tensor in self.inputs.items()},
            targets=_sent(self.targets, device),
            client=_sent(self.client, device),
            weight=_sent(self.weight, device),
            key=_sent(self.key, device),
        )


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on a device; a GPU takes it from pinned memory, or the host would wait for what is computed."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


class Step(NamedTuple):
    """One optimiser step of a cohort.

    Attributes:
        passes: All rows of the step.
        active: How many clients, from the first, take the step.
    """

    passes: tuple[Pass, ...]
    active: int


def pack(rows: Sequence[Row], limits: Limits) -> tuple[Pass, ...]:
    """Rows as passes, each with its rows in the order of their clients, so that they cost least."""
    if not rows:
        return ()
    found = Rows.of(rows)
    chosen = plan(found.client, found.texts.lengths[found.place], limits)
    return tuple(_passes(found.take(chosen.rows), chosen))


def steps(learners: Sequence[Learner], limits: Limits) -> Iterator[Step]:
    """A cohort's steps. Clients with more steps come first, so those still active are always the first ones.

    Raises:
        ValueError: If the learners are in another order.
    """
    budgets = [len(learner.order) for learner in learners]
    if budgets != sorted(budgets, reverse=True):
        raise ValueError(f"expected learners by descending number of steps, got {budgets}")
    splits = [learner.examples for learner in learners]
    texts, streams = Texts(splits), np.array([learner.stream for learner in learners], np.uint64)
    for step in range(budgets[0]):
        active = sum(budget > step for budget in budgets)
        batches = [learner.order[step] for learner in learners[:active]]
        rows = Rows.chosen(texts, splits[:active], batches)
        place = ranges(np.zeros(active, np.int64), np.array([len(batch) for batch in batches]))
        rows = replace(rows, key=stream_keys(streams[rows.client], step, place))
        yield Step(pack(rows, limits), active)


def _passes(rows: Rows, chosen: Plan) -> Iterator[Pass]:
    """The rows of a plan, in its order, as tensors."""
    place, sizes = rows.place, chosen.sizes.tolist()
    inputs = _images if rows.texts.pixels is not None else _padded
    columns = (
        rows.texts.targets[torch.from_numpy(place)].split(sizes),
        torch.from_numpy(rows.client).split(sizes),
        torch.from_numpy(rows.weight.astype(np.float32)).split(sizes),
        torch.from_numpy(rows.key).split(sizes),
    )
    begin = 0
    for size, even, own_inputs, targets, client, weight, key in zip(
        sizes, chosen.even.tolist(), inputs(rows, chosen), *columns, strict=True
    ):
        own = rows.take(slice(begin, begin + size))
        between = (int(own.client[0]), int(own.client[-1]) + 1) if even else None
        yield Pass(own_inputs, targets, client, weight, key, own, between)
        begin += size


def _images(rows: Rows, chosen: Plan) -> Iterator[dict[str, Tensor]]:
    """Images of each pass."""
    assert rows.texts.pixels is not None
    for slots in np.split(rows.texts.slots[rows.place], np.cumsum(chosen.sizes)[:-1]):
        yield taken(rows.texts.pixels, slots)


def _padded(rows: Rows, chosen: Plan) -> Iterator[dict[str, Tensor]]:
    """Tokens of each pass with their mask: made for all passes at once, then parted."""
    texts, place = rows.texts, rows.place
    lengths, widths = texts.lengths[place], np.repeat(chosen.widths, chosen.sizes)
    runs = np.stack([lengths, widths - lengths], axis=1).ravel()  # of tokens and of padding, by turns
    mask = np.repeat(np.tile([True, False], len(rows)), runs)
    real = ranges(texts.begin[place], lengths)
    ids = np.full(len(mask), texts.pad)
    ids[mask] = texts.tokens[real]
    found = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if texts.marks is not None:
        found["learned"] = np.zeros(len(mask), bool)
        found["learned"][mask] = texts.marks[real]
    if texts.types is not None:
        found["token_type_ids"] = np.zeros(len(mask), np.int64)
        found["token_type_ids"][mask] = texts.types[real]
    tokens, sizes = (chosen.sizes * chosen.widths).tolist(), chosen.sizes.tolist()
    parted = {name: torch.from_numpy(all).split(tokens) for name, all in found.items()}
    for i, size in enumerate(sizes):
        yield {name: parts[i].view(size, -1) for name, parts in parted.items()}
