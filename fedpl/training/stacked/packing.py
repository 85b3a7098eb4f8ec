"""Rows of many clients as passes through the model: similar lengths together, within a token limit."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedpl.tasks.examples import Examples, pad_rows
from fedpl.training.dropout import row_keys
from fedpl.training.partitions import Learner

# What a row's own copies of its client's adapter cost, in tokens (MiniLM, rank 8, on a CPU).
_COPY_TOKENS = 2.0


class Limits(NamedTuple):
    """How rows are cut into passes.

    Attributes:
        tokens: Most tokens of a pass, padding included; a longer single row still gets a pass.
        overhead: What one more pass costs, in tokens that could be computed in that time.
        multiple: Lengths are rounded up to a multiple of this.
    """

    tokens: int
    overhead: int = 64
    multiple: int = 1


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

    @property
    def length(self) -> int:
        return self.examples.lengths[self.example]


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
    rows: tuple[Row, ...]
    even: tuple[int, int] | None

    def to(self, device: torch.device) -> "Pass":
        """The same rows on a device."""
        if device.type == "cpu":
            return self
        names = ("targets", "client", "weight", "key")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return self._replace(inputs=inputs, **moved)


class Step(NamedTuple):
    """One optimiser step of a cohort.

    Attributes:
        passes: All rows of the step.
        active: How many clients, from the first, take the step.
    """

    passes: tuple[Pass, ...]
    active: int


def cut(lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Partition rows into passes with the least padded tokens, an overhead counted for each pass.

    Args:
        lengths: Length of each row.
        limits: Largest pass and its overhead.

    Returns:
        Places of the rows of each pass; together every row once.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    padded = [-(-lengths[i] // limits.multiple) * limits.multiple for i in order]
    # Rows of one length stay together, so only the ends of runs of equal length can be cuts.
    ends = [i + 1 for i in range(len(padded)) if i + 1 == len(padded) or padded[i] != padded[i + 1]]
    starts = [0, *ends]
    best: list[tuple[float, int]] = [(0, 0)]  # least cost of the rows before each cut, and the cut before it
    for j, end in enumerate(ends):
        length = padded[end - 1]
        per_pass = max(limits.tokens // length, 1)
        options = []
        for i in range(j, -1, -1):
            rows = end - starts[i]
            number = -(-rows // per_pass)
            options.append((best[i][0] + rows * length + number * limits.overhead, i))
        best.append(min(options))
    passes = []
    j = len(ends)
    while j:
        i = best[j][1]
        members = order[starts[i] : starts[j]]
        number = -(-len(members) // max(limits.tokens // padded[starts[j] - 1], 1))
        size = -(-len(members) // number)
        passes += [members[k : k + size] for k in range(0, len(members), size)]
        j = i
    return passes


def pack(rows: Sequence[Row], limits: Limits) -> tuple[Pass, ...]:
    """Rows as passes, each with its rows in the order of their clients.

    Passes by length pad least, passes of whole clients need no copies of adapters: what costs less is taken.
    """
    lengths = [row.length for row in rows]
    plans = [
        [sorted((rows[i] for i in part), key=lambda row: row.client) for part in plan]
        for plan in (cut(lengths, limits), _by_client(rows, limits))
    ]
    chosen = min(plans, key=lambda plan: sum(_cost(part, limits) for part in plan))
    return tuple(_pass(part, limits.multiple) for part in chosen)


def _by_client(rows: Sequence[Row], limits: Limits) -> list[list[int]]:
    """Passes that hold all rows of each of their clients, as far as the limit allows."""
    passes: list[list[int]] = []
    longest = 0
    order = sorted(range(len(rows)), key=lambda i: rows[i].client)
    for _, group in groupby(order, key=lambda i: rows[i].client):
        own = list(group)
        length = -(-max(rows[i].length for i in own) // limits.multiple) * limits.multiple
        together = max(longest, length)
        if passes and (len(passes[-1]) + len(own)) * together <= limits.tokens:
            passes[-1] += own
            longest = together
        else:
            parts = [[own[i] for i in part] for part in cut([rows[i].length for i in own], limits)]
            passes += parts
            longest = length if len(parts) == 1 else limits.tokens
    return passes


def _cost(part: Sequence[Row], limits: Limits) -> float:
    """What a pass costs, in tokens."""
    length = -(-max(row.length for row in part) // limits.multiple) * limits.multiple
    copies = 0.0 if _even([row.client for row in part]) else _COPY_TOKENS * len(part)
    return len(part) * length + limits.overhead + copies


def steps(learners: Sequence[Learner], limits: Limits) -> Iterator[Step]:
    """A cohort's steps. Clients with more steps come first, so those still active are always the first ones.

    Raises:
        ValueError: If the learners are in another order.
    """
    budgets = [len(learner.order) for learner in learners]
    if budgets != sorted(budgets, reverse=True):
        raise ValueError(f"expected learners by descending number of steps, got {budgets}")
    for step in range(budgets[0]):
        rows = []
        active = sum(budget > step for budget in budgets)
        for client, learner in enumerate(learners[:active]):
            batch = learner.order[step]
            keys = row_keys(learner.stream, step, len(batch)).tolist()
            shares = learner.examples.weights(batch)
            rows += [
                Row(client, learner.examples, index, share, key)
                for index, share, key in zip(batch, shares, keys, strict=True)
            ]
        yield Step(pack(rows, limits), active)


def _pass(rows: Sequence[Row], multiple: int) -> Pass:
    return Pass(
        pad_rows([row.examples.ids[row.example] for row in rows], rows[0].examples.pad, multiple),
        targets=torch.stack([row.examples.targets[row.example] for row in rows]),
        client=torch.tensor([row.client for row in rows]),
        weight=torch.tensor([row.weight for row in rows]),
        key=torch.tensor([row.key for row in rows], dtype=torch.int32),
        rows=tuple(rows),
        even=_even([row.client for row in rows]),
    )


def _even(clients: Sequence[int]) -> tuple[int, int] | None:
    first, stop = clients[0], clients[-1] + 1
    each, rest = divmod(len(clients), stop - first)
    expected = [client for client in range(first, stop) for _ in range(each)]
    return (first, stop) if not rest and list(clients) == expected else None
