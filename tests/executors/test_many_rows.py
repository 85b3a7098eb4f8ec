"""So many rows that their tokens are kept: the same run as from memory, here and in workers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.config import with_changes
from fedpl.executors.settings import ExecutorConfig
from fedpl.runs.experiment import run
from fedpl.tasks import kept
from tests.conftest import small_rows, write_csv
from tests.executors.test_fleet import same
from tests.executors.test_other_process import one_thread

__all__ = ["one_thread"]  # a fixture: rounding depends on the number of threads


def test_workers_map_what_one_of_them_has_made(
    small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers start at once; the run goes on in this process, which makes nothing anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = small_rows(("one-a", "two-a", "three-b"), -(-kept.MANY // 3))
    table = write_csv(tmp_path / "many.csv", rows)
    lean = {"baselines": [], "rounds": 2, "tracking.plots": False, "store_vectors": True}
    lean |= {"client.cohort_size": 2, "client.max_steps": 2, "data.paths": [str(table)]}
    config = with_changes(read(make_parser("fit", ""), small_run), lean)
    with monkeypatch.context() as patch:
        patch.setattr(kept, "MANY", len(rows) + 1)
        alone = run(replace(config, run_dir=str(tmp_path / "here")), Console(quiet=True))
    texts = tmp_path / "cache" / "fedpl" / "texts"
    assert not texts.exists()
    spread = replace(config, executor=ExecutorConfig("processes", workers=2, threads=1))
    folder = tmp_path / "there"
    run(replace(spread, rounds=1, run_dir=str(folder)), Console(quiet=True))
    (index,) = texts.glob("*/index")
    made = index.read_bytes()
    digests = np.frombuffer(made, kept._ENTRY)["digest"].tolist()
    assert len(digests) == len(set(digests)) == len(rows)
    same(alone, run(config, Console(quiet=True), resume=folder))
    assert index.read_bytes() == made
