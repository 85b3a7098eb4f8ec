"""What is a tensor at a site is an array on the way and at the server, which does without torch.

Bits stay what they are, and what is in a message several times stays one.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from fedpl.deferred import deferred
from fedpl.executors.crew import Done

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")

_HALF = np.dtype(ml_dtypes.bfloat16)  # torch and NumPy hand its numbers to each other as integers


def arrays(message: Any) -> Any:
    """A site's message with arrays in place of its tensors, wherever they lie."""
    return _over(message, torch.Tensor, _array, {})


def tensors(message: Any) -> Any:
    """A server's message with tensors in place of its arrays, in memory of their own."""
    return _over(message, np.ndarray, _tensor, {})


def _over(value: Any, kind: type, change: Callable[[Any], Any], known: dict[int, Any]) -> Any:
    """A message of records, sequences and mappings with everything of a kind changed."""

    def inside(one: Any) -> Any:
        return _over(one, kind, change, known)

    if isinstance(value, kind):
        if id(value) not in known:
            known[id(value)] = change(value)
        return known[id(value)]
    match value:
        case Done():
            return Done(inside(value.value))
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*map(inside, value))
        case tuple() | list():
            return type(value)(map(inside, value))
        case Mapping():
            return {key: inside(one) for key, one in value.items()}
    return value


def _array(tensor: "torch.Tensor") -> np.ndarray:
    own = tensor.detach().cpu().contiguous()
    return own.view(torch.int16).numpy().view(_HALF) if own.dtype == torch.bfloat16 else own.numpy()


def _tensor(array: np.ndarray) -> "torch.Tensor":
    # A copy: what came lies as it came, and libraries round by how numbers lie.
    half = array.dtype == _HALF
    found = torch.tensor(array.view(np.int16) if half else array)
    return found.view(torch.bfloat16) if half else found
