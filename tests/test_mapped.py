"""Matrices in files: rows by memory, columns by reads and writes of their own, and all of it is one file."""

import sys
from pathlib import Path

import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.mapped import Mapped, Settling, read_columns, scratch, write_columns

VALUES = np.arange(35, dtype=np.float32).reshape(5, 7)
COLUMNS = slice(2, 5)


def test_columns_of_rows_of_several_matrices(tmp_path: Path) -> None:
    own, other = scratch(tmp_path, (5, 7)), -VALUES
    own[:] = VALUES
    found = read_columns([own, other, own], [4, 0, 1], COLUMNS)
    np.testing.assert_array_equal(found, [VALUES[4, 2:5], other[0, 2:5], VALUES[1, 2:5]])
    assert list(tmp_path.iterdir()) == [], "a file without a name"


@pytest.mark.parametrize("whole", [True, False])
def test_what_is_written_apart_is_seen_in_the_rows(whole: bool, tmp_path: Path) -> None:
    matrix = scratch(tmp_path, (5, 7))
    new = VALUES[:4].T.copy().T[:, COLUMNS]  # no row of it is in one piece
    write_columns(matrix if whole else matrix[1:], COLUMNS, new)
    rows = slice(0, 4) if whole else slice(1, 5)
    np.testing.assert_array_equal(matrix[rows, COLUMNS], new)
    assert np.count_nonzero(matrix) == np.count_nonzero(new)
    # A view begins elsewhere: it reads its own rows, not those of the file.
    np.testing.assert_array_equal(read_columns([matrix[1:]], [0], COLUMNS), matrix[1:2, COLUMNS])


def test_a_matrix_behind_a_header(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    begin = (tmp_path / "x.npy").stat().st_size - VALUES.nbytes
    with (tmp_path / "x.npy").open("rb") as file:
        matrix = Mapped(file, VALUES.shape, begin, "c")
    np.testing.assert_array_equal(read_columns([matrix] * 5, range(5), COLUMNS), VALUES[:, COLUMNS])
    with pytest.raises(UserError, match=r"cannot write .*x\.npy"):  # it was opened for reading
        write_columns(matrix, COLUMNS, VALUES[:, COLUMNS])
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(begin + VALUES.nbytes - 4)
    with pytest.raises(OSError, match="it ends at"):
        matrix.read_row(4, 2, np.empty(5, np.float32))


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for what is in memory")
def test_memory_is_given_back_once_so_much_has_been_touched(tmp_path: Path) -> None:
    matrix = scratch(tmp_path, (64, 2**16))
    settle = Settling((matrix,), matrix[0].nbytes, 8 * matrix[0].nbytes)
    most = 0
    for place, row in enumerate(matrix):
        row[:] = place
        most = max(most, resident(matrix))
        settle()
    assert matrix[0].nbytes <= most <= 9 * matrix[0].nbytes
    assert resident(matrix) == 0
    np.testing.assert_array_equal(matrix[:, 0], range(64))


def resident(matrix: np.ndarray) -> int:
    """Bytes of a mapping that are in the process's memory."""
    begin = f"{matrix.ctypes.data:x}-"
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.startswith(begin))
    return 1024 * int(next(line for line in lines if line.startswith("Rss:")).split()[1])
