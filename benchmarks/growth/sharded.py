"""``python -m benchmarks.growth.sharded``: one run in memory, on disk, and in two shards: memory and seconds.

2,000 clients × 200,000 numbers (1.6 GB a matrix) through two rounds, a budget of 256 MB in each process; only
training is made up. Every process's resident memory at most is read as the system counts it, libraries and
pages of files included. Aggregates are compared with those made in memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.machine import describe
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "growth-sharded.json"
BUDGET = 256
STORAGES = {
    "memory": ("--server.storage=memory",),
    "disk": ("--server.storage=disk", f"--server.memory_budget={BUDGET}"),
    "two shards": ("--server.storage=sharded", "--server.shards=2", f"--server.memory_budget={BUDGET}"),
}


def run(folder: Path, clients: int, params: int, options: Sequence[str]) -> dict[str, Any]:
    """A run in a process of its own, and what it and its shards held at most, in megabytes."""
    command = [sys.executable, "-m", "benchmarks.growth.killed", "--only", str(folder)]
    command += ["--clients", str(clients), "--params", str(params), "--method=fedbip", *options]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    held: dict[int, int] = {}
    while process.poll() is None:
        for each in (psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)):
            held[each.pid] = max(held.get(each.pid, 0), _most(each.pid))
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"{folder.name}: ended with {process.returncode}")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    server = held.pop(process.pid)
    return {
        "server_mb": round(server / 2**20),
        "shards_mb": [round(size / 2**20) for size in held.values() if size > 2**27],
        "step_seconds": [json.loads(line)["seconds"]["aggregate"] for line in lines],
    }


def _most(pid: int) -> int:
    """Bytes that were resident at most, so far; 0: the process is gone."""
    try:
        told = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = told.partition("VmHWM:")[2].split()
    return 1024 * int(found[0]) if found else 0


def apart(one: Path, other: Path) -> float:
    """The largest difference of two matrices in files, of the longest row's length."""
    first, second = (np.load(path, mmap_mode="r") for path in (one, other))
    most = longest = 0.0
    for a, b in zip(first, second, strict=True):
        most, longest = max(most, float(np.abs(a - b).max())), max(longest, float(np.linalg.norm(a)))
    return most / longest


def main(argv: Sequence[str] | None = None) -> None:
    """Run all three, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth.sharded", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--params", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    size = arguments.clients, arguments.params
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sharded-") as root:
        for name, options in STORAGES.items():
            found[name] = run(Path(root) / name, *size, options)
            last = "state/aggregates-000002.npy"
            found[name]["apart"] = apart(Path(root) / "memory" / last, Path(root) / name / last)
            print(f"{name}: {found[name]}", flush=True)
    report = describe() | {"clients": size[0], "params": size[1], "budget_mb": BUDGET, "storages": found}
    write_json(arguments.out, report)


if __name__ == "__main__":
    main()
