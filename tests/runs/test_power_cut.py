"""What a run has said to be done is on disk: a power cut takes nothing of it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedpl.config import Config
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult
from fedpl.runs.folder import RunFolder
from fedpl.site.memory import Memory
from fedpl.tracking.matrices import Matrices
from fedpl.tracking.tracker import JsonLines
from fedpl.tracking.vectors import store_vectors
from tests.disk import Disk
from tests.made_up import ORIGIN, record
from tests.rounds.conftest import CLIENTS
from tests.runs.test_resume import standing


def survived(folder: Path, disk: Disk) -> list[str]:
    """The names of the files that a power cut leaves, each as it is."""
    left = disk.after_a_power_cut(folder)
    assert left == {name: (folder / name).read_bytes() for name in left}
    return sorted(left)


def test_a_run_directory(tmp_path: Path, disk: Disk) -> None:
    folder = RunFolder.create(Config(run_dir=str(tmp_path / "run")), ORIGIN)
    folder.wandb_id()
    assert survived(tmp_path, disk) == ["run/config.yaml", "run/state/origin.json", "run/state/wandb-id"]


@pytest.mark.parametrize("precision", [True, "bf16"])
def test_task_vectors(precision: Any, tmp_path: Path, disk: Disk) -> None:
    store_vectors(tmp_path, 1, np.ones((2, 3), np.float32), (2, 3), precision)
    assert survived(tmp_path, disk) == [f"round-0001.{'bf16.' if precision == 'bf16' else ''}npy"]


def test_every_rounds_row_and_matrices(toy: Callable[..., Federation], tmp_path: Path, disk: Disk) -> None:
    folder = tmp_path / "records"
    matrices = folder / "matrices"
    matrices.mkdir(parents=True)
    trackers = JsonLines(folder / "metrics.jsonl"), Matrices(matrices)
    rows = []

    def heard(result: RoundResult) -> None:
        for tracker in trackers:
            tracker.round(record(dict.fromkeys(CLIENTS, 0.5), round=result.round), result)
        rows.append(disk.after_a_power_cut(folder)["metrics.jsonl"].count(b"\n"))

    standing(toy(), tmp_path / "run", 2).finish(heard)
    assert rows == [1, 2]
    names = [f"round-{round:04d}-{name}.npy" for round in (1, 2) for name in ("similarity", "weights")]
    assert survived(matrices, disk) == names


def test_what_clients_remember(tmp_path: Path, disk: Disk) -> None:
    digest = Memory(tmp_path / "memory").keep("one/a", {"count": torch.ones(1)})
    assert survived(tmp_path, disk) == [f"memory/one%2Fa/{digest}.safetensors"]


def test_after_a_power_cut_at_any_time_no_finished_round_is_lost(
    toy: Callable[..., Federation], tmp_path: Path, disk: Disk
) -> None:
    """What the disk holds then is gone on with, to the same end."""
    cuts: list[tuple[int, dict[str, bytes]]] = []
    begun = [1]
    folder = tmp_path / "whole"
    folder.mkdir()
    disk.heard = lambda: cuts.append((begun[0], disk.after_a_power_cut(folder)))

    def heard(result: RoundResult) -> None:
        begun[0] = result.round

    expected = standing(toy(), folder).finish(heard)
    disk.heard = lambda: None
    assert len(cuts) > 100
    for number, (round, left) in enumerate([*random.Random(0).sample(cuts, 12), cuts[-1]]):
        again = tmp_path / f"cut-{number}"
        for name, content in left.items():
            (again / name).parent.mkdir(parents=True, exist_ok=True)
            (again / name).write_bytes(content)
        found = standing(toy(), again)
        assert found.rounds_done >= round - 1
        assert found.finish(lambda result: None) == expected
