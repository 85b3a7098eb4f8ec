"""Outputs of the frozen blocks before the first adapted one, computed once per text and kept."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedpl.records.layout import AdapterLayout
from fedpl.tasks.examples import Examples
from fedpl.training.stacked.packing import Pass

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
    """

    def __init__(self, blocks: list[nn.Module], limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._kept: dict[tuple[Examples, int], Float[Tensor, "length features"]] = {}
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
        kept = [self._kept.get((row.examples, row.example)) for row in part.rows]
        absent = [i for i, states in enumerate(kept) if states is None]
        fresh = self._compute(part, absent, run) if absent else None
        sample = fresh if fresh is not None else kept[0]
        assert sample is not None
        states = sample.new_zeros(*part.inputs["input_ids"].shape, sample.shape[-1])
        if fresh is not None:
            states[absent] = fresh
        for i, (row, remembered) in enumerate(zip(part.rows, kept, strict=True)):
            if remembered is not None:
                states[i, : row.length] = remembered
        return states

    @torch.no_grad()
    def _compute(self, part: Pass, absent: list[int], run: Run) -> Float[Tensor, "rows length features"]:
        self._collect = True
        try:
            run(part.client[absent], {name: tensor[absent] for name, tensor in part.inputs.items()})
        except _Reached as reached:
            states = reached.states
        finally:
            self._collect = False
        for i, computed in zip(absent, states, strict=True):
            row = part.rows[i]
            size = row.length * computed.shape[-1] * computed.element_size()
            if self.used + size <= self.limit:
                self._kept[row.examples, row.example] = computed[: row.length].clone()
                self.used += size
        return states

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
