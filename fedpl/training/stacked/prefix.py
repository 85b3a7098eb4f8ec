"""Outputs of the frozen blocks before the first adapted one, computed once per text and kept."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fedpl.records.layout import AdapterLayout
from fedpl.tasks.examples import Examples, ranges
from fedpl.training.stacked.packing import Pass
from fedpl.training.stacked.rows import Rows

# Runs the model on (each row's client, inputs by name, whether rows are even).
Run = Callable[..., Any]


def prefix_blocks(model: nn.Module, layout: AdapterLayout) -> list[nn.Module]:
    """The blocks before the first adapted one and that one; empty if there are none or it cannot be told."""
    numbered = [block.rpartition(".") for block in layout.blocks if block != "head"]
    parents = {parent for parent, _, number in numbered if number.isdigit()}
    if len(parents) != 1 or not all(number.isdigit() for _, _, number in numbered):
        return []
    first = min(int(number) for _, _, number in numbered)
    blocks = model.get_submodule(parents.pop())
    return [blocks.get_submodule(str(i)) for i in range(first + 1)] if first else []


class _Reached(Exception):
    """Ends a pass at the first adapted block."""

    def __init__(self, states: Float[Tensor, "rows length features"]) -> None:
        self.states = states


class Prefix:
    """Lets passes start at the first adapted block, with remembered states where there are some.

    The states hold while nothing in the prefix is random: not with the model's own dropout.

    Args:
        blocks: From `prefix_blocks`; their forward is wrapped.
        limit: Most bytes to keep; states beyond it are computed again each time.
        tokens: Of all texts that can come: for so many there is room, if the limit allows it.
    """

    def __init__(self, blocks: list[nn.Module], limit: int, tokens: int) -> None:
        self.limit = limit
        self.tokens = tokens
        self.used = 0
        # All that is kept, one text after another; where each text begins in it, by number, -1: nowhere.
        self._kept: Float[Tensor, "tokens features"] | None = None
        self._begin = np.empty(0, np.int64)
        self._first: dict[Examples, int] = {}
        self._collect = False
        self._states: Float[Tensor, "rows length features"] | None = None
        self._as_tuple = False
        *skipped, first = blocks
        for block in skipped:
            block.forward = self._skip(block.forward, last=block is skipped[-1])
        first.forward = self._stop(first.forward)

    def run(self, part: Pass, run: Run) -> Any:
        """Run the model on a pass from the first adapted block on."""
        states = self._known(part, run)
        self._states = states
        try:
            return run(part.client, part.inputs, part.even)
        finally:
            self._states = None

    def _known(self, part: Pass, run: Run) -> Float[Tensor, "rows length features"]:
        numbers = self._numbers(part.rows)
        absent = np.flatnonzero(self._begin[numbers] < 0)
        fresh = self._compute(part, absent, run) if len(absent) else None
        states = None if self._kept is None else self._recalled(part, self._begin[numbers])
        if fresh is None:
            assert states is not None
            return states
        if states is None or len(absent) == len(part.rows):
            return fresh
        states[_places(absent, states.device)] = fresh
        return states

    def _recalled(self, part: Pass, begin: Int[np.ndarray, "rows"]) -> Float[Tensor, "rows length features"]:
        """What is kept of the rows; zeros elsewhere."""
        assert self._kept is not None
        mask = _real(part)
        starts = _places(begin, mask.device)[:, None]
        mask = mask & (starts >= 0)
        place = (starts + torch.arange(mask.shape[1], device=mask.device)).masked_fill_(~mask, 0)
        return self._kept[place].masked_fill_(~mask[..., None], 0)

    @torch.no_grad()
    def _compute(
        self, part: Pass, absent: Int[np.ndarray, "absent"], run: Run
    ) -> Float[Tensor, "absent length features"]:
        places = _places(absent, part.client.device)
        self._collect = True
        try:
            run(part.client[places], {name: tensor[places] for name, tensor in part.inputs.items()})
        except _Reached as reached:
            states = reached.states
        finally:
            self._collect = False
        self._keep(part.rows.take(absent), states)
        return states

    def _keep(self, rows: Rows, states: Float[Tensor, "rows length features"]) -> None:
        """Keep the states of as many rows, from the first, as there is room for."""
        size = states.shape[-1] * states.element_size()
        if self._kept is None:
            self._kept = states.new_empty(min(self.limit // size, self.tokens), states.shape[-1])
        lengths = rows.texts.lengths[rows.place]
        used = self.used // size
        ends = used + np.cumsum(lengths)
        number = int((ends <= min(self.limit // size, len(self._kept))).sum())
        if number:
            real = ranges(np.arange(number) * states.shape[1], lengths[:number])
            self._kept[used : ends[number - 1]] = states.flatten(0, 1)[_places(real, states.device)]
            self._begin[self._numbers(rows)[:number]] = (ends - lengths)[:number]
            self.used = int(ends[number - 1]) * size

    def _numbers(self, rows: Rows) -> Int[np.ndarray, "rows"]:
        """A number for each row's example, the same whenever it comes."""
        for split in rows.texts.splits:
            if split not in self._first:
                self._first[split] = len(self._begin)
                self._begin = np.append(self._begin, np.full(len(split), -1))
        first = np.array([self._first[split] for split in rows.texts.splits])
        return first[rows.split] + rows.example

    def _skip(self, forward: Callable[..., Any], last: bool) -> Callable[..., Any]:
        def wrapped(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._states is None:
                result = forward(hidden_states, *args, **kwargs)
                self._as_tuple = isinstance(result, tuple)
                return result
            states = self._states if last else hidden_states
            return (states,) if self._as_tuple else states

        return wrapped

    def _stop(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._collect:
                raise _Reached(hidden_states)
            return forward(hidden_states, *args, **kwargs)

        return wrapped


def _real(part: Pass) -> Bool[Tensor, "rows length"]:
    """Which positions are not padding; of images all."""
    if "attention_mask" in part.inputs:
        return part.inputs["attention_mask"].bool()
    length = int(part.rows.texts.lengths[0])
    return torch.ones(len(part.rows), length, dtype=torch.bool, device=part.client.device)


def _places(places: Int[np.ndarray, "n"], device: torch.device) -> Int[Tensor, "n"]:
    return torch.from_numpy(places).to(device, non_blocking=True)
