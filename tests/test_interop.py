import jax
import jax.numpy as jnp
import pytest
import torch

from fedpl.interop import allocate, borrow, lend, server_device


@pytest.mark.parametrize(("clients", "params"), [(1, 1), (3, 7), (12, 74_498), (5, 1001)])
def test_jax_reads_the_very_memory_that_torch_fills(clients: int, params: int) -> None:
    matrix = allocate(clients, params, torch.device("cpu"))
    matrix[:] = torch.arange(clients * params, dtype=torch.float32).view(clients, params)
    view = lend(matrix)
    assert view.unsafe_buffer_pointer() == matrix.data_ptr()
    assert view.shape == (clients, params)
    assert float(view[-1, -1]) == clients * params - 1


def test_torch_reads_the_very_memory_of_jax() -> None:
    array = jnp.arange(6.0).reshape(2, 3)
    tensor = borrow(array)
    assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_cannot_be_shared_is_refused_not_copied() -> None:
    whole = allocate(4, 33, torch.device("cpu"))
    with pytest.raises(ValueError, match="contiguous"):
        lend(whole[:, :5])
    with pytest.raises(ValueError, match="copy=False"):
        lend(whole[1])  # 33 floats on: no longer aligned


def test_a_lent_parameter_needs_no_gradient() -> None:
    assert isinstance(lend(torch.zeros(16, requires_grad=True)), jax.Array)


def test_task_vectors_stay_on_the_host_when_jax_has_no_gpu() -> None:
    assert server_device(torch.device("cpu")).type == "cpu"
    expected = "cuda" if jax.default_backend() == "gpu" else "cpu"
    assert server_device(torch.device("cuda", 0)).type == expected
