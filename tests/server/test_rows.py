"""Equal rows lie on disk once, and come back bit for bit."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedpl.errors import UserError
from fedpl.files import read_tensors, write_tensors
from fedpl.server.rows import once, spread
from fedpl.server.state import ServerState, load_state, save_state


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32)))
def test_any_tensor_comes_back(tensor: np.ndarray) -> None:
    found = spread(once({"x": tensor}))
    assert list(found) == ["x"]
    assert (found["x"].dtype, found["x"].shape) == (tensor.dtype, tensor.shape)
    assert found["x"].tobytes() == tensor.tobytes()


@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.sampled_from([0, 50, 99]))
def test_each_row_is_there_once(which: list[int], place: int) -> None:
    """Also of rows that differ in their middle alone."""
    models = np.zeros((4, 100), np.float32)
    models[:, place] = [0.0, -0.0, 1.0, np.nan]
    tensor = models[which]
    kept = once({"x": tensor})
    assert len(kept["x"]) == len(set(which))
    assert spread(kept)["x"].tobytes() == tensor.tobytes()


def test_a_state_of_one_average_is_small_and_loads_as_it_was(tmp_path: Path) -> None:
    personal = jnp.tile(jnp.arange(1000.0), (50, 1)).at[3].add(1)
    state = ServerState(2, personal, jnp.zeros(1000), {"server": {"velocity": personal}})
    save_state(state, tmp_path / "state")
    assert (tmp_path / "state").stat().st_size < 6 * 4000
    found = load_state(tmp_path / "state")
    assert np.array_equal(found.personal, personal)
    assert np.array_equal(found.of("server")["velocity"], personal)


@pytest.mark.parametrize("index", [[0, 2], [-1, 0], [0.0, 1.0]])
def test_an_index_that_does_not_fit_is_refused(index: list[float], tmp_path: Path) -> None:
    tensors = {"personal": np.ones((2, 3)), "reference": np.ones(3)}
    whole = np.array(index) if isinstance(index[0], float) else np.array(index, np.int32)
    write_tensors(tmp_path / "state", {**tensors, "rows.personal": whole}, {"round": "1"})
    assert "rows.personal" in read_tensors(tmp_path / "state")[0]
    with pytest.raises(UserError, match="not a server state"):
        load_state(tmp_path / "state")
