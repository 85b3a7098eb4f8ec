"""Rows of many clients as passes through the model: similar lengths together, within a token limit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedpl.training.dropout import stream_keys
from fedpl.training.partitions import Learner
from fedpl.training.stacked.cutting import Limits, Plan, cut, plan
from fedpl.training.stacked.rows import Row, Rows, Texts, ranges

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
    """The rows of a plan, in its order, as tensors: made for all passes at once, then parted."""
    texts, place, sizes = rows.texts, rows.place, chosen.sizes.tolist()
    lengths, widths = texts.lengths[place], np.repeat(chosen.widths, chosen.sizes)
    runs = np.stack([lengths, widths - lengths], axis=1).ravel()  # of tokens and of padding, by turns
    mask = np.repeat(np.tile([True, False], len(rows)), runs)
    ids = np.full(len(mask), texts.pad)
    ids[mask] = texts.tokens[ranges(texts.begin[place], lengths)]
    marks = np.zeros(len(mask), bool)
    if texts.marks is not None:
        marks[mask] = texts.marks[ranges(texts.begin[place], lengths)]
    types = np.zeros(len(mask), np.int64)
    if texts.types is not None:
        types[mask] = texts.types[ranges(texts.begin[place], lengths)]
    tokens = (chosen.sizes * chosen.widths).tolist()
    columns = (
        torch.from_numpy(ids).split(tokens),
        torch.from_numpy(mask.astype(np.int64)).split(tokens),
        torch.from_numpy(marks).split(tokens),
        torch.from_numpy(types).split(tokens),
        texts.targets[torch.from_numpy(place)].split(sizes),
        torch.from_numpy(rows.client).split(sizes),
        torch.from_numpy(rows.weight.astype(np.float32)).split(sizes),
        torch.from_numpy(rows.key).split(sizes),
    )
    begin = 0
    for size, even, own_ids, own_mask, learned, own_types, targets, client, weight, key in zip(
        sizes, chosen.even.tolist(), *columns, strict=True
    ):
        inputs = {"input_ids": own_ids.view(size, -1), "attention_mask": own_mask.view(size, -1)}
        if texts.marks is not None:
            inputs["learned"] = learned.view(size, -1)
        if texts.types is not None:
            inputs["token_type_ids"] = own_types.view(size, -1)
        own = rows.take(slice(begin, begin + size))
        between = (int(own.client[0]), int(own.client[-1]) + 1) if even else None
        yield Pass(inputs, targets, client, weight, key, own, between)
        begin += size
