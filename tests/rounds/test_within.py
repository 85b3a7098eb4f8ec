"""The budget of rounds on disk is a bound on the process's memory, whatever they keep and whoever is away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rounds.within import BUDGET, CASES, SQUARES

ROOT = Path(__file__).parents[2]
AT_ONCE = str(2**16)  # bytes from which what is freed goes back to the system, so that it is not counted


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel how much a process has held")
@pytest.mark.parametrize("case", CASES)
def test_no_more_is_held_than_the_budget(case: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.rounds.within", case, str(tmp_path)],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
        | {"MALLOC_MMAP_THRESHOLD_": AT_ONCE, "MALLOC_TRIM_THRESHOLD_": AT_ONCE},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["most"] - found["before"] <= BUDGET + SQUARES
