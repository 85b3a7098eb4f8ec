"""What is left of a machine's memory."""

import os
from pathlib import Path

import torch

from fedpl.model.memory import free_memory, host_memory


def test_free_memory_is_of_this_machine() -> None:
    assert (
        2**27 < free_memory(torch.device("cpu")) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )


def test_free_memory_is_the_lesser_of_machine_and_container(tmp_path: Path) -> None:
    container = tmp_path / "sys/fs/cgroup"
    container.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    for file, says, free in (
        (tmp_path / "proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:  5000 kB\nHugePages: 0\n", 5_120_000),
        (container / "memory.max", "max\n", 5_120_000),
        (container / "memory.current", "1000000\n", 5_120_000),
        (container / "memory.max", "3000000\n", 2_000_000),
        (container / "memory.stat", "anon 5\ninactive_file 400000\n", 2_400_000),
        (container / "memory.current", "9000000\n", 0),  # over its limit for a moment
        (container / "memory.max", "99000000\n", 5_120_000),  # a limit beyond the machine
    ):
        file.write_text(says)
        assert host_memory(tmp_path) == free, (file, says)
