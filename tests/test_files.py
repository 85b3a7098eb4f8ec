"""Files that cannot be written: one line, and what was there stays."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.files import make_folder, move, write_array, write_atomically, write_json, write_tensors
from tests.disk import Disk


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n "x": 1\n}\n'


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "bytes": lambda path, value: write_atomically(path, b"%d" % value),
    "json": write_json,
    "tensors": lambda path, value: write_tensors(path, {"x": np.full(3, value)}, {}),
    "array": lambda path, value: write_array(path, np.full(3, value)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_written_survives_a_power_cut_and_what_it_replaces_until_then(
    kind: str, tmp_path: Path, disk: Disk
) -> None:
    path, seen = tmp_path / "file", []
    WRITERS[kind](path, 1)
    old = path.read_bytes()
    assert disk.after_a_power_cut(tmp_path) == {"file": old}
    disk.heard = lambda: seen.append(disk.after_a_power_cut(tmp_path)["file"])
    WRITERS[kind](path, 2)
    assert seen == [old, path.read_bytes()]


def test_new_folders_and_new_names_survive_a_power_cut(tmp_path: Path, disk: Disk) -> None:
    make_folder(tmp_path / "old")
    make_folder(tmp_path / "old" / "below")
    write_atomically(tmp_path / "old" / "below" / "file", b"1")
    assert disk.after_a_power_cut(tmp_path) == {"old/below/file": b"1"}
    move(tmp_path / "old", tmp_path / "new")
    assert disk.after_a_power_cut(tmp_path) == {"new/below/file": b"1"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomically(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(UserError, match=r"cannot write .*state: No space left on device.*intact") as raised:
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert "\n" not in str(raised.value)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state"], "no half-written file is left"


def test_a_folder_that_has_gone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        write_atomically(tmp_path / "gone" / "state", b"new")


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[None]:
    """Rights are checked for the rest of the test, even where tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path(folder.anchor) and not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    os.seteuid(65534)
    yield
    os.seteuid(0)


def test_a_folder_that_is_read_only(tmp_path: Path, unprivileged: None) -> None:
    if os.geteuid() == os.stat(tmp_path).st_uid:
        tmp_path.chmod(0o555)
    with pytest.raises(UserError, match=r"cannot write .*: Permission denied"):
        write_atomically(tmp_path / "state", b"new")
