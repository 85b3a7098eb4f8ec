"""An accelerator for tests on machines without one: its memory is the host's, its numbers are real.

A tensor is on it or on the CPU; as on a GPU, an operation on both fails, transfers and scalars aside. It may
also run out of memory: no tensor is larger than `LARGEST`. Loading this module changes torch for good (its
one free device type is taken), so it belongs into a process of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peft.utils.other
import safetensors.torch
import torch
from lightning.pytorch.accelerators import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_aten = torch.ops.aten
_TRANSFERS = {_aten._to_copy.default, _aten.copy_.default, _aten._local_scalar_dense.default}
# Indices may be on the CPU.
_INDEXING = {_aten.index.Tensor, _aten.index_put_.default, _aten._index_put_impl_.default}


class _Backend:
    """What torch asks a device type for; there are no random streams, as fedpl draws on the CPU."""

    def is_initialized(self) -> bool:
        return True

    is_available = is_initialized

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass

    def device_count(self) -> int:
        return 1

    def get_rng_state(self, device: int = 0) -> Tensor:
        return torch.zeros(8, dtype=torch.uint8)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return []

    def set_rng_state(self, state: Tensor, device: int = 0) -> None:
        pass


_setup_privateuseone_for_python_backend("emulated", backend_module=_Backend())
# A parameter stays the same object when its module moves, as on a GPU.
torch.__future__.set_swap_module_params_on_conversion(True)

DEVICE = torch.device("emulated", 0)
# Numbers of the largest tensor; None: any.
LARGEST: int | None = None


class Emulated(Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, host: Tensor) -> "Emulated":
        return Tensor._make_wrapper_subclass(
            cls,
            host.size(),
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            layout=host.layout,
            device=DEVICE,
        )

    def __init__(self, host: Tensor) -> None:
        self.host = host

    def tolist(self) -> Any:
        return self.host.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: tuple, kwargs: dict) -> Any:
    """An operation, on the host's memory; its results are where a GPU's would be."""
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    there = any(isinstance(x, Emulated) for x in tensors)
    if there and func not in _TRANSFERS:
        index = func in _INDEXING and isinstance(args[0], Emulated)
        if not index and any(not isinstance(x, Emulated) and x.dim() > 0 for x in tensors):
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, got {DEVICE} and cpu")
    asked = kwargs.get("device")
    on_host, options = pytree.tree_map(lambda x: x.host if isinstance(x, Emulated) else x, (args, kwargs))
    if asked is not None:
        options = options | {"device": "cpu"}
    result = func(*on_host, **options)
    if func is _aten.copy_.default:
        there = isinstance(args[0], Emulated)
    elif asked is not None:
        there = torch.device(asked).type == DEVICE.type
    if not there or func is _aten._local_scalar_dense.default:
        return result
    return return_and_correct_aliasing(func, args, kwargs, pytree.tree_map(_arrived, result))


def _arrived(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    if LARGEST is not None and x.numel() > LARGEST:
        raise torch.OutOfMemoryError(f"{x.numel()} numbers on a device for {LARGEST}")
    return Emulated(x)


class _Operations(TorchDispatchMode):
    """Sees operations without a tensor on the device, such as transfers to it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Spells out what torch does to Python numbers below its dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return func(*args, **(kwargs | {"device": None})).to(DEVICE)
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            where = args[1] if isinstance(args[1], tuple) else (args[1],)
            where = tuple(torch.tensor(part) if isinstance(part, list) else part for part in where)
            args = (args[0], where if isinstance(args[1], tuple) else where[0], *args[2:])
        return func(*args, **kwargs)


@contextmanager
def present() -> Iterator[None]:
    """While the device is there."""
    with _Operations(), _Functions():
        yield


class EmulatedAccelerator(Accelerator):
    """The device as Lightning knows it."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    @staticmethod
    def parse_devices(devices: Any) -> list[torch.device]:
        return [DEVICE]

    get_parallel_devices = parse_devices

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return DEVICE.type

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}


# A tensor without a storage of its own is told from others by that of its host.
for _name in ("storage_ptr", "storage_size"):
    _known = getattr(safetensors.torch, _name)

    def _of_host(tensor: Tensor, known: Any = _known) -> int:
        inner = tensor.detach()
        return known(inner.host if isinstance(inner, Emulated) else inner)

    for _module in (safetensors.torch, peft.utils.other):
        if hasattr(_module, _name):
            setattr(_module, _name, _of_host)
