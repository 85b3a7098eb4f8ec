"""How the trainable tensors of an adapter lie in one flat vector."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal

Granularity = Literal["model", "block", "tensor", "kind"]
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

    @property
    def module(self) -> str:
        """The adapted module's name; for the head its own."""
        return self.name.split(".lora_", 1)[0] if self.kind != "head" else "head"


@dataclass(frozen=True)
class AdapterLayout:
    """Names, shapes and columns of every trainable tensor; blocks are contiguous. Hashable.

    Attributes:
        entries: The tensors, in the order of their columns.
        scale: α / r: an adapted module's weight changes by scale · B A.
    """

    entries: tuple[Entry, ...]
    scale: float = 1.0

    @classmethod
    def of(cls, shapes: dict[str, tuple[int, ...]], scale: float = 1.0) -> "AdapterLayout":
        """Lay tensors out block by block, in the order in which the model names them, the head last."""
        blocks = {name: block_of(name) for name in shapes}
        first = {block: i for i, block in reversed(list(enumerate(blocks.values())))}
        order = sorted(shapes, key=lambda name: (blocks[name] == "head", first[blocks[name]]))
        entries, start = [], 0
        for name in order:
            entry = Entry(name, tuple(shapes[name]), start, blocks[name], kind_of(name))
            entries.append(entry)
            start = entry.stop
        return cls(tuple(entries), scale)

    @cached_property
    def size(self) -> int:
        """Number of trainable parameters."""
        return self.entries[-1].stop if self.entries else 0

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, in the order of their columns."""
        return tuple(block for block, _ in groupby(entry.block for entry in self.entries))

    @cached_property
    def pairs(self) -> tuple[tuple[Entry, Entry], ...]:
        """LoRA factors A [r, d_in] and B [d_out, r] of every adapted module."""
        named = {entry.name: entry for entry in self.entries}
        return tuple(
            (entry, named[entry.name.replace("lora_A", "lora_B")])
            for entry in self.entries
            if entry.kind == "lora_A"
        )

    @cached_property
    def residual_size(self) -> int:
        """Entries of all adapted modules' weight matrices together."""
        return sum(a.shape[1] * b.shape[0] for a, b in self.pairs)

    def groups(self, granularity: Granularity) -> tuple[tuple[Entry, ...], ...]:
        """Tensors that are compared and mixed as one; a kind is a module's name within its block."""
        labels = [self._label(entry, granularity) for entry in self.entries]
        return tuple(
            tuple(entry for entry, own in zip(self.entries, labels, strict=True) if own == label)
            for label in dict.fromkeys(labels)
        )

    def labels(self, granularity: Granularity) -> tuple[str, ...]:
        """A name for each of `groups`."""
        return tuple(dict.fromkeys(self._label(entry, granularity) for entry in self.entries))

    def boundaries(self, granularity: Granularity) -> tuple[tuple[int, int], ...]:
        """Column ranges [start, stop) of `groups`, where each is one range (all but kinds)."""
        return tuple((group[0].start, group[-1].stop) for group in self.groups(granularity))

    @staticmethod
    def _label(entry: Entry, granularity: Granularity) -> str:
        match granularity:
            case "model":
                return "model"
            case "block":
                return entry.block
            case "tensor":
                return entry.name
            case _:
                return entry.module.rsplit(".", 1)[-1]


def merge_ranges(entries: Iterable[Entry]) -> tuple[tuple[int, int], ...]:
    """Column ranges of tensors, neighbours joined."""
    ranges: list[tuple[int, int]] = []
    for entry in entries:
        if ranges and ranges[-1][1] == entry.start:
            ranges[-1] = (ranges[-1][0], entry.stop)
        else:
            ranges.append((entry.start, entry.stop))
    return tuple(ranges)


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
