"""Sweeps as a user starts them, on a small model and a small table."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

optuna = pytest.importorskip("optuna")

from fedpl.errors import UserError  # noqa: E402
from fedpl.fit import main as fit  # noqa: E402
from fedpl.sweep.__main__ import main  # noqa: E402

ROOT = Path(__file__).parents[2]
METRIC = {"name": "validation/aggregated/mean/accuracy", "goal": "maximize"}
PARAMETERS: dict[str, Any] = {
    "client.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    "aggregator.weighting.negatives": {"values": ["keep", "clip"]},
}


@pytest.fixture(scope="module")
def arguments(small_run: list[str]) -> list[str]:
    return small_run


def write(folder: Path, **changes: Any) -> str:
    content = {
        "name": "small",
        "program": "fedpl/fit.py",
        "method": "random",
        "metric": METRIC,
        "parameters": PARAMETERS,
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return str(path)


def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "sweep.json").read_text())


@pytest.fixture(scope="module")
def finished(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished random sweep of five trials."""
    folder = tmp_path_factory.mktemp("sweeps")
    assert main([write(folder), "--trials=5", f"--out={folder / 'out'}", *arguments]) == 0
    return folder / "out"


def test_a_sweep_leaves_its_files(finished: Path) -> None:
    files = {path.name for path in finished.iterdir()}
    wanted = {"study.db", "sweep.json", "trials.csv", "best.yaml", "parallel.png", "importance.png", "trials"}
    assert wanted <= files
    assert (finished / "parallel.png").stat().st_size > 10_000
    rows = list(csv.DictReader((finished / "trials.csv").open()))
    assert [row["trial"] for row in rows] == ["0", "1", "2", "3", "4"]


def test_trials_are_ordinary_runs_with_the_values_they_were_given(finished: Path) -> None:
    trials = result(finished)["trials"]
    assert len(trials) == 5
    for trial in trials:
        folder = finished / "trials" / f"trial-{trial['number']:04d}"
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["client"]["lr"] == trial["parameters"]["client.lr"]
        assert config["tracking"]["wandb"]["group"] == "small"
        summary = json.loads((folder / "summary.json").read_text())
        assert trial["value"] == summary["validation"]["mean"]["aggregated"]["accuracy"]
    values = [trial["value"] for trial in trials]
    assert values == sorted(values, reverse=True)
    assert len({trial["parameters"]["client.lr"] for trial in trials}) == 5


def test_the_best_configuration_can_be_run(finished: Path, tmp_path: Path) -> None:
    """On the model that trials shared or on a fresh one: the same result."""
    best = result(finished)["trials"][0]
    fit([f"--config={finished / 'best.yaml'}", "--baselines=[]", f"--run_dir={tmp_path / 'run'}"])
    again, before = (
        json.loads((folder / "summary.json").read_text())
        for folder in (tmp_path / "run", finished / "trials" / f"trial-{best['number']:04d}")
    )
    for summary in (again, before):
        del summary["seconds"]
    assert again == before
    config = yaml.safe_load((finished / "best.yaml").read_text())
    assert config["tracking"]["wandb"]["group"] is None


def test_more_trials_later_keep_those_before(
    finished: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("trials/*/summary.json")}
    main([str(finished.parent / "sweep.yaml"), "--trials=6", f"--out={finished}", *arguments])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(result(finished)["trials"]) == 6
    assert "5 trials were begun before" in " ".join(capsys.readouterr().out.split())


def test_hyperband_cuts_and_wandb_runs_stay_apart(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that was cut is marked so in its own offline run, and the next one has another."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    parameters = {"client.lr": {"values": [0.05, 1e-9]}}
    halving = {"type": "hyperband", "min_iter": 1, "eta": 2}
    file = write(tmp_path, method="grid", parameters=parameters, early_terminate=halving)
    main([file, f"--out={tmp_path / 'out'}", *arguments, "--client.epochs=4"])
    first, second = result(tmp_path / "out")["trials"]
    assert (first["number"], first["state"], first["rounds"]) == (0, "complete", 2)
    assert (second["number"], second["state"], second["rounds"]) == (1, "cut short", 1)
    for number, lines in ((0, 2), (1, 1)):
        folder = tmp_path / "out" / "trials" / f"trial-{number:04d}"
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == lines
        (log,) = folder.glob("wandb/offline-run-*/*.wandb")
        assert (b"cut_short" in log.read_bytes()) == (number == 1)


def test_a_combination_that_does_not_fit_fails_alone(arguments: list[str], tmp_path: Path) -> None:
    parameters = {
        "client.cohort_size": {"values": ["auto", 1]},
        "client.gradient_checkpointing": {"values": [False, True]},
    }
    file = write(tmp_path, method="grid", parameters=parameters)
    main([file, f"--out={tmp_path / 'out'}", *arguments])
    states = {
        tuple(trial["parameters"].values()): trial["state"] for trial in result(tmp_path / "out")["trials"]
    }
    assert states.pop((1, True)) == "failed"
    assert set(states.values()) == {"complete"}


@pytest.mark.parametrize(
    ("changes", "extra", "message"),
    [
        ({}, [], "--trials: say how many"),
        ({}, ["--trials=1", "--jobs=0"], "--jobs: at least 1"),
        ({"parameters": {"client.lrr": {"value": 1}}}, ["--trials=1"], "did you mean 'client.lr'"),
        ({}, ["--trials=1", "--rounds=0"], "rounds: at least 1"),
        ({}, ["--trials=x"], "invalid int value"),
        ({}, ["--trials=1", "--replay=nowhere"], "client.lr would need training"),
    ],
)
def test_mistakes_are_found_before_any_work(
    changes: dict[str, Any], extra: list[str], message: str, arguments: list[str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        main([write(tmp_path, **changes), f"--out={tmp_path / 'out'}", *arguments, *extra])
    assert not (tmp_path / "out").exists()


def test_a_directory_with_something_else_is_left_alone(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="something else than a sweep"):
        main([write(tmp_path), "--trials=1", f"--out={tmp_path}", *arguments])


@pytest.mark.slow
def test_a_sweep_in_processes_survives_sigkill(arguments: list[str], tmp_path: Path) -> None:
    """Two processes, killed with all their trials under way; the second start finishes the rest."""
    out = tmp_path / "out"
    call = [sys.executable, "-m", "fedpl.sweep", write(tmp_path), "--trials=5", "--jobs=2", f"--out={out}"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}"}
    with subprocess.Popen([*call, *arguments], env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while not list(out.glob("trials/*/summary.json")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out / 'study.db'}")
    before = {trial.number: trial.datetime_complete for trial in study.trials if trial.state.is_finished()}
    subprocess.run([*call, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=300)
    after = optuna.load_study(study_name="sweep", storage=f"sqlite:///{out / 'study.db'}").trials
    assert [trial.state.name for trial in after] == ["COMPLETE"] * 5
    assert {number: after[number].datetime_complete for number in before} == before
    assert len(result(out)["trials"]) == 5
