"""How much memory a device has left, and what is given back to it."""

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.deferred import deferred

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")


def return_memory(device: "torch.device") -> None:
    """Hand unused host memory back to the system, where the C library can.

    Passes of ever different shapes leave holes in glibc's heap, which would grow with the number of cohorts.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None and device.type == "cpu":
        trim(0)


def free_memory(device: "torch.device | str") -> int:
    """Bytes that can still be taken on a device; on a CPU also within the container's limit."""
    if str(device).startswith("cuda"):
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has reserved and does not use is free too.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return host_memory(Path("/"))


def host_memory(root: Path) -> int:
    """Bytes that a process can still take, by what the system under `root` says of itself and its container.

    Pages of files that can be dropped count as free in the container, as they do in the system's own number.
    """
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = 1024 * _numbers(root / "proc/meminfo").get("MemAvailable:", available // 1024)
    container = root / "sys/fs/cgroup"
    limit, used = container / "memory.max", container / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        dropped = _numbers(container / "memory.stat").get("inactive_file", 0)
        available = min(available, int(limit.read_text()) - int(used.read_text()) + dropped)
    return max(available, 0)


def _numbers(path: Path) -> dict[str, int]:
    """What stands in a file of the system, a name and a number a line."""
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
