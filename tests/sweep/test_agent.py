"""Trials that raise: the sweep goes on, here and with W&B's own agent against a server on loopback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

optuna = pytest.importorskip("optuna")

from fedpl.sweep.__main__ import main  # noqa: E402
from tests.sweep.test_sweep import METRIC, result, write  # noqa: E402
from tests.tracking.wandb_stub import Stub  # noqa: E402

# A rule that breaks at its first use, as a user's own might.
BROKEN = """
from dataclasses import dataclass
from fedpl.server import Uniform

@dataclass(frozen=True)
class Broken(Uniform):
    def weigh(self, evidence, memory):
        raise RuntimeError("on purpose")
"""
RULES = {"aggregator.weighting": {"values": ["broken_rules.Broken", "fedpl.server.FedBip"]}}


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "broken_rules.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_trial_that_raises_is_a_failed_trial(
    rules: Path,
    server: Stub,
    small_run: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It ended the sweep, and was the first to be run when the sweep went on."""
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    monkeypatch.setenv("WANDB_NAME", "mine")
    file = write(rules, method="grid", parameters=RULES)
    main([file, f"--out={rules / 'out'}", *small_run])
    trials = {trial["number"]: trial for trial in result(rules / "out")["trials"]}
    assert [trials[number]["state"] for number in (0, 1)] == ["failed", "complete"]
    assert trials[0]["message"] == "RuntimeError: on purpose"
    assert "Traceback" in caplog.text
    ends = {run.shown["displayName"]: run.exitcode for run in server.runs.values()}
    assert ends == {"trial-0000": 1, "trial-0001": 0, "out-report": 0}


@pytest.mark.slow
def test_an_agent_of_wandb_goes_on_after_a_trial_that_raises(
    rules: Path, server: Stub, small_run: list[str]
) -> None:
    content = {
        "program": "fedpl.fit",
        "command": ["${env}", "${interpreter}", "-m", "${program}", "--baselines=[]", *small_run, "${args}"],
        "method": "grid",
        "metric": METRIC,
        "parameters": RULES,
    }
    (rules / "sweep.yaml").write_text(yaml.safe_dump(content))
    # The agent's interpreter is the first `python` of the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    modules = os.pathsep.join([str(rules), os.environ["PYTHONPATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": modules}
    for words in (["sweep", "sweep.yaml", "--project=fedpl"], ["agent", "someone/fedpl/sweep1"]):
        done = subprocess.run(
            [sys.executable, "-m", "wandb", *words],
            cwd=rules,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert "on purpose" in done.stderr
    first, second = (server.runs[f"sweep1run{number}"] for number in (1, 2))
    assert (first.exitcode, first.history) == (1, [])
    assert (second.exitcode, second.rounds) == (0, [1, 2])
    for name in ("test/aggregated/mean/accuracy", "test/mean/aggregated/accuracy", METRIC["name"]):
        assert name in second.summary, "a sweep's file may still say the older name"
