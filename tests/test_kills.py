"""`python -m benchmarks.kills`: runs that are killed end as if they had not been, and it would tell."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.kills.series import content, differences
from fedpl.files import write_json, write_tensors

ROOT = Path(__file__).parents[1]


def killed(kills: int, folder: Path, *jobs: str) -> dict[str, Any]:
    """What the command finds."""
    output = folder / "kills.json"
    command = [sys.executable, "-m", "benchmarks.kills", "--jobs", *jobs, "--kills", str(kills)]
    done = subprocess.run(
        [*command, "--output", str(output)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(output.read_text())
    assert found["kills"] >= kills
    assert sum(found["phases"].values()) == found["kills"]
    assert found["equal"] is True
    assert list(found["jobs"]) == list(jobs)
    return found


def test_a_run_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    killed(4, tmp_path, "ditto, half of the clients")


@pytest.mark.slow
def test_so_do_cohorts_with_baselines_clients_one_by_one_and_a_server_on_disk(tmp_path: Path) -> None:
    killed(
        30,
        tmp_path,
        "fedbip, baselines, pictures",
        "feddpa, one by one, half",
        "fedbip, half, on disk",
        "fedbip_l, half, sharded",
    )


def run(folder: Path, seconds: float = 1.0) -> Path:
    """A few files of a run."""
    folder.mkdir()
    write_json(folder / "summary.json", {"x": {"y": 0.5, "seconds": seconds}})
    (folder / "metrics.jsonl").write_text('{"round": 1}\n{"round": 2}\n')
    write_tensors(folder / "state.safetensors", {"x": np.ones(3)}, {"round": "2", "elapsed": str(seconds)})
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "metrics.jsonl differs": lambda path: (path / "metrics.jsonl").write_text('{"round": 1}\n{"round": 1}\n'),
    "state.safetensors differs": lambda path: write_tensors(
        path / "state.safetensors", {"x": np.nextafter(np.ones(3), 2)}, {"round": "2"}
    ),
    "summary.json is missing": lambda path: (path / "summary.json").unlink(),
    "open is too much": lambda path: (path / "open").mkdir(),
}


@pytest.mark.parametrize("difference", CHANGES)
def test_a_difference_is_found(difference: str, tmp_path: Path) -> None:
    one, other = content(run(tmp_path / "one")), run(tmp_path / "other", seconds=2.0)
    assert differences(one, content(other)) == []
    CHANGES[difference](other)
    assert differences(one, content(other)) == [difference]
