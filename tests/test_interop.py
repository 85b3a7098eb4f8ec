from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fedpl.interop import allocate, borrow, cloned, copied, lend, library, on_host, server_device, stacked

KINDS = [torch.zeros(1), np.zeros(1, np.float32)]


def place(rows: Any) -> int:
    return on_host(rows).ctypes.data


@pytest.mark.parametrize("like", KINDS)
@pytest.mark.parametrize(("clients", "params"), [(1, 1), (3, 7), (12, 74_498), (5, 1001)])
def test_jax_reads_the_very_memory_that_clients_fill(clients: int, params: int, like: Any) -> None:
    matrix = allocate(clients, params, like)
    assert type(matrix) is type(like)
    assert not on_host(matrix).any()
    on_host(matrix)[:] = np.arange(clients * params).reshape(clients, params)
    view = lend(matrix)
    assert view.unsafe_buffer_pointer() == place(matrix)
    assert view.shape == (clients, params)
    assert float(view[-1, -1]) == clients * params - 1


@pytest.mark.parametrize("like", KINDS)
def test_clients_read_the_very_memory_of_jax(like: Any) -> None:
    array = jnp.arange(6.0).reshape(2, 3)
    rows = borrow(array, like)
    assert type(rows) is type(like)
    assert place(rows) == array.unsafe_buffer_pointer()
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]
    # A rule that takes the array's memory leaves what has been borrowed alone.
    jax.jit(lambda x: x + 1, donate_argnums=0)(array).block_until_ready()
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("like", KINDS)
def test_copies(like: Any) -> None:
    rows = library(like).arange(33.0, dtype=like.dtype)[1:]  # not aligned
    own, copy, both = copied(cloned(rows)), cloned(rows), stacked([rows, rows + 1])
    rows[:] = 0
    np.testing.assert_array_equal(own, np.arange(1, 33))
    np.testing.assert_array_equal(on_host(copy), np.arange(1, 33))
    np.testing.assert_array_equal(both, [np.arange(1, 33), np.arange(2, 34)])
    assert both.dtype == jnp.float32


@pytest.mark.parametrize("like", KINDS)
def test_what_cannot_be_shared_is_refused_not_copied(like: Any) -> None:
    whole = allocate(4, 33, like)
    with pytest.raises(ValueError, match="contiguous"):
        lend(whole[:, :5])
    with pytest.raises(ValueError, match="copy=False"):
        lend(whole[1])  # 33 floats on: no longer aligned


def test_a_lent_parameter_needs_no_gradient() -> None:
    assert isinstance(lend(torch.zeros(16, requires_grad=True)), jax.Array)


def test_task_vectors_stay_on_the_host_when_jax_has_no_gpu() -> None:
    assert server_device("cpu") == "cpu"
    assert server_device("cuda:0") == ("cuda:0" if jax.default_backend() == "gpu" else "cpu")
