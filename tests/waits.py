"""How often a piece of work would wait for a device: operations whose result the host has to see."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_WAITS = {_aten._local_scalar_dense.default, _aten.equal.default, _aten.nonzero.default}


class Operations(TorchDispatchMode):
    """Within it `seen` counts what is computed, by operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func] += 1
        return func(*args, **(kwargs or {}))


def waits(work: Callable[[], object]) -> int:
    """Operations that wait, `tolist` aside."""
    with Operations() as operations:
        work()
    return sum(operations.seen[operation] for operation in _WAITS)
