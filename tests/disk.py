"""A disk and a power cut: what was not forced to disk is gone."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Number = tuple[int, int]


class Disk:
    """Keeps of each file what was last forced to disk, of each folder the names.

    Args:
        patch: Watches `os.fsync` as long as it lasts.

    Attributes:
        heard: Called after each time that something was forced to disk.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.heard: Callable[[], None] = lambda: None
        self._files: dict[Number, bytes] = {}
        self._folders: dict[Number, dict[str, tuple[Number, bool]]] = {}
        self._open: list[int] = []
        sync = os.fsync

        def fsync(fd: Any) -> None:
            sync(fd)
            self._keep(fd if isinstance(fd, int) else fd.fileno())
            self.heard()

        patch.setattr(os, "fsync", fsync)

    def after_a_power_cut(self, folder: Path) -> dict[str, bytes]:
        """The files below a folder that is there, by name."""
        return dict(self._below(_number(folder.stat()), ""))

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def _keep(self, descriptor: int) -> None:
        self._open.append(os.dup(descriptor))  # no other file gets its number meanwhile
        number, path = _number(os.fstat(descriptor)), Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self._folders[number] = {
                each.name: (_number(each.stat()), each.is_dir()) for each in path.iterdir()
            }
        else:
            self._files[number] = path.read_bytes()

    def _below(self, folder: Number, prefix: str) -> Iterator[tuple[str, bytes]]:
        for name, (number, is_folder) in self._folders.get(folder, {}).items():
            if is_folder:
                yield from self._below(number, f"{prefix}{name}/")
            else:
                yield prefix + name, self._files.get(number, b"")  # the name alone, nothing in it


def _number(stat: os.stat_result) -> Number:
    return stat.st_dev, stat.st_ino
