"""Torch and JAX on the same memory, by dlpack. The only module that imports both."""

import os

# JAX would otherwise take three quarters of the GPU's memory, which torch needs.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
import torch
from jaxtyping import Float

from fedpl.server import programs

programs.keep()


def server_device(training: torch.device) -> torch.device:
    """Where task vectors live: on the training device if JAX can use it too, else in host memory."""
    shared = training.type == "cpu" or jax.default_backend() == "gpu"
    return training if shared else torch.device("cpu")


def allocate(clients: int, params: int, device: torch.device) -> Float[torch.Tensor, "clients params"]:
    """A zeroed float32 matrix, aligned as JAX wants it, for clients to fill row by row."""
    return torch.zeros(clients, params, dtype=torch.float32, device=device)


def lend(tensor: Float[torch.Tensor, "*shape"]) -> Float[jax.Array, "*shape"]:
    """JAX's view of a torch tensor, without a copy.

    The memory stays shared: do not write to the tensor until every computation on the view is done
    (``jax.block_until_ready``), or the computation reads the new values.

    Raises:
        ValueError: If sharing would need a copy, because the tensor is not contiguous or not aligned.
    """
    if not tensor.is_contiguous():
        raise ValueError(f"expected a contiguous tensor, got strides {tensor.stride()}")
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return jax.dlpack.from_dlpack(tensor.detach(), copy=False)


def borrow(array: Float[jax.Array | np.ndarray, "*shape"]) -> Float[torch.Tensor, "*shape"]:
    """Torch's view of a JAX array, without a copy: read only, and drop it before the array is donated.

    A NumPy array is one that lies on disk.
    """
    if isinstance(array, np.ndarray):
        return torch.from_numpy(array)
    return torch.from_dlpack(jax.block_until_ready(array))
