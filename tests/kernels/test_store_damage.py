"""A row file that was cut anywhere or changed anywhere is refused, or still holds the right numbers."""

from pathlib import Path

import numpy as np
import pytest
from fedpl_kernels import VectorStore
from hypothesis import given, settings
from hypothesis import strategies as st

ROW = np.linspace(-1, 1, 16, dtype=np.float32)


def stored(folder: Path) -> tuple[VectorStore, Path]:
    store = VectorStore.create(folder, 1, len(ROW))
    store.write(0, ROW)
    return store, store.row_path(0)


def test_cut_at_every_byte(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="missing or damaged"):
            store.read(0)
        assert not store.verify().any()
    path.write_bytes(whole + b"x")
    with pytest.raises(ValueError, match="missing or damaged"):
        store.read(0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_byte(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    store, path = stored(tmp_path_factory.mktemp("store"))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        found = store.read(0)
    except ValueError:
        assert not store.verify().any()
    else:
        assert found.tobytes() == ROW.tobytes()
