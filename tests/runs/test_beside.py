"""What goes on beside a run cannot end it; one process works on a run; an interruption says the way on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from rich.console import Console

from fedpl.api import Run
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.files import held
from fedpl.pictures.plots import cluster_order
from fedpl.runs.experiment import run
from fedpl.tracking.weights_and_biases import WandbTracker


@pytest.fixture
def config(small_run: list[str], tmp_path: Path) -> Config:
    lean = {"baselines": [], "rounds": 2, "run_dir": str(tmp_path / "run")}
    return with_changes(read(make_parser("fit", ""), small_run), lean)


def test_similarities_above_one_have_an_order() -> None:
    """Inner products: "distance matrix has negative distances" ended a run in round 1."""
    products = np.array([[4.0, 3.0, -1.0], [3.0, 5.0, 0.0], [-1.0, 0.0, 2.0]])
    assert sorted(cluster_order(products)) == [0, 1, 2]


def test_a_picture_that_fails_is_named_and_the_run_ends_well(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: Any) -> None:
        raise ValueError("negative distances")

    monkeypatch.setattr("fedpl.pictures.plots.heat_map", broken)
    folder = run(config, Console(quiet=True))
    assert Run.open(folder).finished
    assert "the pictures failed; the run goes on without" in caplog.text
    assert "negative distances" in caplog.text


def test_a_tracker_that_fails_is_named_once(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def broken(self: WandbTracker, *arguments: Any) -> None:
        asked.append(arguments)
        raise RuntimeError("no server")

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(WandbTracker, "round", broken)
    folder = run(with_changes(config, {"tracking.plots": False}), Console(quiet=True))
    assert Run.open(folder).finished
    assert len(asked) == 1
    assert wandb.run is None, "the next run in this process would go on in it"
    assert caplog.text.count("Weights & Biases failed; the run goes on without") == 1


def test_a_second_process_is_refused(config: Config, tmp_path: Path) -> None:
    """Two that resumed one run ended with rounds 1, 1, 2, 2 and a wrong summary."""
    folder = run(with_changes(config, {"rounds": 1}), Console(quiet=True))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with held(folder), pytest.raises(UserError, match="another process is working on"):
        run(config, Console(quiet=True), resume=folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    run(config, Console(quiet=True), resume=folder)
    assert list(Run.open(folder).rounds.index) == [1, 2]


# A shell's background job, which the tests may be, ignores Ctrl-C.
PROGRAM = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("fedpl.fit", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "ended by SIGTERM"), (signal.SIGINT, 130, "interrupted")],
)
def test_an_interrupted_process_says_how_to_go_on(
    number: int, code: int, word: str, small_run: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", PROGRAM, *small_run, "--baselines=[]", "--rounds=500"]
    command += [f"--run_dir={folder}", "--tracking.plots=false"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    end = time.monotonic() + 120
    while len(Run.open(folder).records if (folder / "config.yaml").is_file() else ()) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"fedpl: {folder} is the run directory" in out
    assert f"{word}; go on with: python -m fedpl.fit --resume {folder}" in err
    assert "Traceback" not in err
    assert not Run.open(folder).finished
