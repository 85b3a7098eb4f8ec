"""What a run's numbers owe to the number of threads: nothing that is drawn, and the last bits of sums."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import bounds

ROOT = Path(__file__).parents[2]
PROGRAM = (
    "import os, sys; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]); "
    "from fedpl.fit import main; sys.exit(main(sys.argv[2:]))"
)
LEAN = (
    "--tracking.wandb.mode=disabled",
    "--tracking.plots=false",
    "--tracking.progress=false",
    "--baselines=[]",
)
OPTIONS = (
    "--store_vectors=true",
    "--participation.fraction=0.67",
    "--lora.dropout=0.1",
    "--client.max_steps=2",
)


@pytest.fixture(scope="module")
def runs(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run directories: with two threads, once more, and with one; XLA takes one for each processor."""
    folder = tmp_path_factory.mktemp("threads")
    for name, threads in (("two", 2), ("again", 2), ("one", 1)):
        command = [sys.executable, "-c", PROGRAM, str(threads), *small_run, *LEAN, *OPTIONS]
        path = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads)}
        command.append(f"--run_dir={folder / name}")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    return {path.name: path for path in folder.iterdir()}


def vectors(run: Path) -> list[np.ndarray]:
    return [np.load(path) for path in sorted(run.glob("vectors/*.npy"))]


def records(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in one.items() if "seconds" not in key} for one in found]


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: untimed(part) for key, part in value.items() if "seconds" not in key and key != "run_dir"
        }
    return [untimed(part) for part in value] if isinstance(value, list) else value


def test_as_many_threads_give_the_same_bits(runs: dict[str, Path]) -> None:
    two, again = runs["two"], runs["again"]
    assert len(vectors(two)) == 2
    for one, other in zip(vectors(two), vectors(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert untimed(records(two)) == untimed(records(again))
    summaries = [json.loads((run / "summary.json").read_text()) for run in (two, again)]
    assert untimed(summaries[0]) == untimed(summaries[1])


def test_other_threads_draw_the_same_and_round_differently(runs: dict[str, Path]) -> None:
    """Splits, participants, order, dropout and the start are drawn by seed; only sums may differ."""
    for one, two in zip(records(runs["one"]), records(runs["two"]), strict=True):
        assert one["clients"]["id"] == two["clients"]["id"]
        assert (one["steps"], one["drawn"]) == (two["steps"], two["drawn"])
    for one, two in zip(vectors(runs["one"]), vectors(runs["two"]), strict=True):
        present = np.isfinite(one).all(1) & one.any(1)
        assert present.sum() == 2
        apart = np.linalg.norm(one - two, axis=1)[present] / np.linalg.norm(two, axis=1)[present]
        assert apart.max() < bounds.trained(steps=2 * 2)
