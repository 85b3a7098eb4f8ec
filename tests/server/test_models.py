"""Distinct aggregates and whose they are: as a whole matrix would be, whatever moves."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpl.errors import UserError
from fedpl.server.models import Models, distinct
from fedpl.server.parts import names_of, open_part, part_path, read_models, write_part

N, D = 9, 40


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rounds_of_some_clients_leave_what_a_matrix_would_hold(data: st.DataObject) -> None:
    """And rows that nobody has are never more than those that somebody has, but for the last part."""
    models, matrix = Models.start(np.zeros((1, D), np.float32), N), np.zeros((N, D), np.float32)
    for round in range(1, 7):
        clients = sorted(data.draw(st.sets(st.integers(0, N - 1), min_size=1)))
        which = data.draw(st.lists(st.integers(0, 3), min_size=len(clients), max_size=len(clients)))
        new = np.full((4, D), round, np.float32)
        new[:, 20] = range(4)
        matrix[clients] = new[which]
        kept, places = distinct(new[which])
        staying = models.staying(clients)
        left = [models.parts[one.part][row] for one in staying for row in one.rows]
        rows = new[which] if kept is None else new[which][kept]
        models = models.after(round, np.stack([*rows, *left]), clients, places, staying)
        np.testing.assert_array_equal(np.asarray(models), matrix)
        used = {(int(made), int(row)) for made, row in zip(models.made, models.row, strict=True)}
        older = sum(len(part) for made, part in models.parts.items() if made != round)
        assert older <= 2 * len([made for made, _ in used if made != round])
        if models.whole is not None:
            np.testing.assert_array_equal(models.whole, matrix)


def some() -> Models:
    parts = {2: np.arange(8, dtype=np.float32).reshape(2, 4), 5: np.full((1, 4), -0.0, np.float32)}
    return Models(parts, np.array([2, 5, 2], np.int32), np.array([1, 0, 0], np.int32))


@pytest.mark.parametrize("mapped", [False, True])
def test_parts_come_back_bit_for_bit(mapped: bool, tmp_path: Path) -> None:
    models = some()
    filled = open_part(tmp_path, 5, (1, 4))
    filled[:] = models.parts[5]
    assert not part_path(tmp_path, 5).exists(), "it is not whole yet"
    written = {2: write_part(tmp_path, 2, jnp.asarray(models.parts[2])), 5: write_part(tmp_path, 5, filled)}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aggregates-000002.npy",
        "aggregates-000005.npy",
    ]
    found = read_models(tmp_path, *names_of(models, written), mapped)
    assert found is not None
    assert np.asarray(found).tobytes() == np.asarray(models).tobytes()
    assert isinstance(found.parts[2], np.memmap) == mapped


@pytest.mark.parametrize(
    ("made", "row", "why"), [([2, 5, 2], [2, 0, 0], "has no row 2"), ([2, 5, 3], [0, 0, 0], "in no part")]
)
def test_what_does_not_fit_together_is_refused(
    made: list[int], row: list[int], why: str, tmp_path: Path
) -> None:
    models = some()
    names = names_of(models, {part: write_part(tmp_path, part, rows) for part, rows in models.parts.items()})
    wrong = {"models.made": np.array(made), "models.row": np.array(row)}
    with pytest.raises(ValueError, match=why):
        read_models(tmp_path, wrong, names[1])
    part_path(tmp_path, 5).unlink()
    with pytest.raises(UserError, match=r"aggregates-000005\.npy cannot be read"):
        read_models(tmp_path, *names)
