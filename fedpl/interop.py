"""Rows of numbers that clients fill and JAX computes with: torch's, or NumPy's where no client lives here.

Where clients live in this process, rows are torch's, on the device that trains, and JAX has the same memory
by dlpack. Where they are elsewhere, rows are NumPy's, in host memory, and torch is not imported. Of which
kind they are θ₀ says, as an executor hands it over: `like`. The only module that knows both torch and JAX.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

# JAX would otherwise take three quarters of the GPU's memory, which torch needs.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fedpl.deferred import deferred
from fedpl.server import programs

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")

programs.keep()
_ALIGNED = 64  # bytes, as XLA wants what it takes without a copy


def server_device(training: str) -> str:
    """Where task vectors live: on the training device if JAX can use it too, else in host memory."""
    return training if jax.default_backend() == "gpu" else "cpu"


def library(rows: Any) -> Any:
    """Whose these rows are: NumPy or torch."""
    return np if isinstance(rows, np.ndarray) else torch


def allocate(clients: int, params: int, like: Float[Any, "..."]) -> Float[Any, "clients params"]:
    """A zeroed float32 matrix, aligned as JAX wants it, for clients to fill row by row."""
    if not isinstance(like, np.ndarray):
        return torch.zeros(clients, params, dtype=torch.float32, device=like.device)
    size = 4 * clients * params
    memory = np.zeros(size + _ALIGNED, np.uint8)
    begin = -memory.ctypes.data % _ALIGNED
    return memory[begin : begin + size].view(np.float32).reshape(clients, params)


def lend(rows: Float[Any, "*shape"], on_disk: bool = False) -> Float[jax.Array, "*shape"]:
    """JAX's view of rows, without a copy; NumPy's are copied to a GPU where JAX has one.

    The memory stays shared: do not write to the rows until every computation on the view is done
    (``jax.block_until_ready``), or the computation reads the new values.

    Args:
        rows: The rows.
        on_disk: Whether they lie on disk: then they are computed with on the CPU.

    Raises:
        ValueError: If sharing would need a copy, because the rows are not contiguous or not aligned.
    """
    ours = isinstance(rows, np.ndarray)
    if not (rows.flags.c_contiguous if ours else rows.is_contiguous()):
        strides = rows.strides if ours else rows.stride()
        raise ValueError(f"expected contiguous rows, got strides {strides}")
    if ours:
        shared = on_disk or jax.default_backend() == "cpu"
        return jax.dlpack.from_dlpack(rows, copy=False) if shared else jnp.asarray(rows)
    if rows.is_cuda:
        torch.cuda.synchronize(rows.device)
    return jax.dlpack.from_dlpack(rows.detach(), copy=False)


def free_to_lend(rows: Float[Any, "..."]) -> float:
    """Bytes that JAX's own device has for copies of such rows; infinite where it needs none."""
    known = jax.devices()[0].memory_stats() if isinstance(rows, np.ndarray) else None
    return np.inf if known is None else known["bytes_limit"] - known["bytes_in_use"]


def borrow(array: Float[jax.Array | np.ndarray, "*shape"], like: Float[Any, "..."]) -> Float[Any, "*shape"]:
    """A JAX array as rows, without a copy: read only, and drop them before the array is donated.

    A NumPy array is one that lies on disk.
    """
    if isinstance(array, np.ndarray):
        return np.asarray(array) if isinstance(like, np.ndarray) else torch.from_numpy(array)
    array = jax.block_until_ready(array)
    if isinstance(like, np.ndarray):
        return np.from_dlpack(jax.device_put(array, _host()))
    return torch.from_dlpack(array)


def copied(rows: Float[Any, "*shape"], on_disk: bool = False) -> Float[jax.Array, "*shape"]:
    """JAX's own copy of rows, however they are aligned: it outlives them; arguments as of `lend`."""
    if isinstance(rows, np.ndarray):
        return jnp.array(rows, device=_host() if on_disk else None)
    return jnp.array(lend(rows.cpu() if on_disk else rows))


def stacked(rows: Sequence[Float[Any, "params"]]) -> Float[jax.Array, "rows params"]:
    """JAX's own matrix of these rows, which may be overwritten."""
    if isinstance(rows[0], np.ndarray):
        return copied(np.stack(rows))
    matrix = jnp.zeros((len(rows), len(rows[0])), jnp.float32)
    target = borrow(matrix, rows[0])  # written to before anybody reads it
    for line, own in zip(target, rows, strict=True):
        line.copy_(own)
    if target.is_cuda:
        torch.cuda.synchronize(target.device)
    return matrix


def on_host(rows: Float[Any, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Rows for NumPy, without a copy where they are in host memory."""
    return rows if isinstance(rows, np.ndarray) else rows.cpu().numpy()


def cloned(rows: Float[Any, "*shape"]) -> Float[Any, "*shape"]:
    """Rows of the same kind in memory of their own."""
    return rows.copy() if isinstance(rows, np.ndarray) else rows.clone()


def _host() -> jax.Device:
    return jax.devices("cpu")[0]
