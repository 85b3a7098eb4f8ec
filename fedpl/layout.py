"""How the trainable tensors of an adapter lie in one flat vector."""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

Granularity = Literal["model", "block", "tensor"]
_NUMBERED = re.compile(r"^(.*?\.\d+)(?:\.|$)")


@dataclass(frozen=True)
class Entry:
    """One trainable tensor.

    Attributes:
        name: Its name in the model, without the adapter's own name.
        shape: Its shape.
        start: First column in the flat vector.
        block: The transformer block it belongs to, or ``head``.
        kind: LoRA factor A or B, or a tensor of the head.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    block: str
    kind: Literal["lora_A", "lora_B", "head"]

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size

    @property
    def stop(self) -> int:
        return self.start + self.size


@dataclass(frozen=True)
class AdapterLayout:
    """Names, shapes and columns of every trainable tensor; blocks are contiguous. Hashable."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, shapes: dict[str, tuple[int, ...]]) -> "AdapterLayout":
        """Lay tensors out block by block, in the order in which the model names them, the head last."""
        blocks = {name: block_of(name) for name in shapes}
        first = {block: i for i, block in reversed(list(enumerate(blocks.values())))}
        order = sorted(shapes, key=lambda name: (blocks[name] == "head", first[blocks[name]]))
        entries, start = [], 0
        for name in order:
            entry = Entry(name, tuple(shapes[name]), start, blocks[name], kind_of(name))
            entries.append(entry)
            start = entry.stop
        return cls(tuple(entries))

    @cached_property
    def size(self) -> int:
        """Number of trainable parameters."""
        return self.entries[-1].stop if self.entries else 0

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, in the order of their columns."""
        return tuple(block for block, _ in groupby(entry.block for entry in self.entries))

    def boundaries(self, granularity: Granularity) -> tuple[tuple[int, int], ...]:
        """Column ranges [start, stop) that are compared and mixed as one."""
        if granularity == "model":
            return ((0, self.size),)
        if granularity == "tensor":
            return tuple((entry.start, entry.stop) for entry in self.entries)
        runs = [list(run) for _, run in groupby(self.entries, key=lambda entry: entry.block)]
        return tuple((run[0].start, run[-1].stop) for run in runs)

    def labels(self, granularity: Granularity) -> tuple[str, ...]:
        """A name for each of `boundaries`."""
        if granularity == "model":
            return ("model",)
        return self.blocks if granularity == "block" else tuple(entry.name for entry in self.entries)


def kind_of(name: str) -> Literal["lora_A", "lora_B", "head"]:
    """LoRA factor or head, by the tensor's name."""
    if "lora_A" in name:
        return "lora_A"
    return "lora_B" if "lora_B" in name else "head"


def block_of(name: str) -> str:
    """The transformer block a LoRA tensor belongs to: its name up to the first number."""
    if kind_of(name) == "head":
        return "head"
    numbered = _NUMBERED.match(name)
    return numbered.group(1) if numbered else name.rsplit(".lora_", 1)[0]
