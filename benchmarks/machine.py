"""What a result was measured on and with."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from fedpl.versions import versions


def describe() -> dict[str, Any]:
    """Machine, versions and commit, as every file in ``results/`` records them."""
    return {"machine": machine(), "versions": versions(), "commit": commit()}


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and the GPU where there is one."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1)}
    torch = sys.modules.get("torch")  # not imported for this alone: memory may be what is measured
    if torch and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def commit() -> str:
    """The checked-out commit, marked when files differ from it."""
    root = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()

    changed = git(
        "status", "--porcelain", "--untracked-files=no", "--", "fedpl", "kernels", "benchmarks/*.py"
    )
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
