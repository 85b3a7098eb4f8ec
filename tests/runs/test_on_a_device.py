"""Federated runs on an accelerator that is not the CPU: emulated, so that they run anywhere.

Every tensor that training, scoring and the server touch is on the right device, or the run fails; and the
numbers are those of the CPU. What this cannot show: speed, memory, and bf16 on a real card.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_language import language_model, rows

ROOT = Path(__file__).parents[2]
LEAN = ["--baselines=[]", "--tracking.plots=false", "--tracking.progress=false"]
BY_METHOD = {
    name: [f"--config=configs/method/{name}.yaml"]
    for name in ("apfl", "ditto", "fedala", "feddpa", "flora", "ifca", "pfedgraph")
}
OPTIONS = {
    "blocks": ["--aggregator.granularity=block"],
    "one class": ["--client.mask_absent_classes=true"],
    "prefix": ["--lora.layers_to_transform=[1]", "--client.model_dropout=false"],
    "privacy, hostile, late": ["--privacy.clip=1.0", "--faults.hostile=0.34", "--faults.late=0.3"],
    "checkpointing": ["--client.gradient_checkpointing=true"],
    # The activations of two clients do not fit, those of one do.
    "out of memory": ["--client.cohort_size=3", "--largest=4100"],
}
CASES = {f"{name}, cohorts": ["--client.cohort_size=2", *of] for name, of in (BY_METHOD | OPTIONS).items()}
ONE_BY_ONE = ("apfl", "feddpa", "flora")
CASES |= {f"{name}, one by one": ["--client.cohort_size=1", *BY_METHOD[name]] for name in ONE_BY_ONE}


LANGUAGE = {
    "language, cohorts": ["--task=Generation", "--client.cohort_size=2"],
    "language, one by one": [
        "--task=Choice",
        "--client.cohort_size=1",
        "--config=configs/method/feddpa.yaml",
    ],
}


@pytest.fixture(scope="module")
def talking(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a run of a language model."""
    folder = tmp_path_factory.mktemp("talking")
    lines = [row for client in ("one", "two", "three") for row in rows(client, ("yes", "no"))]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    model = language_model(folder / "model")
    columns = ["--data.columns.prompt=prompt", "--data.columns.answer=answer"]
    return [f"--data.paths=[{folder}/rows.jsonl]", *columns, f"--model.path={model}"]


@pytest.fixture(scope="module")
def runs(small_run: list[str], talking: list[str]) -> dict[str, Any]:
    # A method's file comes first: dotted options before it would be overwritten.
    jobs = {
        name: sorted([*small_run, *LEAN, *case], key=lambda word: not word.startswith("--config"))
        for name, case in (CASES | {name: [*talking, *case] for name, case in LANGUAGE.items()}).items()
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.runs.device_program"],
        input=json.dumps(jobs),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}


def numbers(record: Any, path: str = "") -> dict[str, float]:
    """All numbers of a record by their place, without times."""
    if isinstance(record, dict):
        found = [numbers(value, f"{path}/{key}") for key, value in record.items() if "seconds" not in key]
    elif isinstance(record, list):
        found = [numbers(value, f"{path}/{i}") for i, value in enumerate(record)]
    else:
        return {path: float(record)} if isinstance(record, int | float) else {}
    return {key: value for part in found for key, value in part.items()}


@pytest.mark.parametrize("name", sorted(CASES | LANGUAGE))
def test_a_run_is_that_of_the_cpu(runs: dict[str, Any], name: str) -> None:
    device, cpu = runs[name]["device"], runs[name]["cpu"]
    assert (device["on"], cpu["on"]) == ("emulated:0", "cpu")
    expected = numbers(cpu["rounds"]) | numbers(cpu["clients"], "/clients")
    assert len(expected) > 50
    # Passes are cut and padded for a GPU there, so sums are rounded in another order.
    assert numbers(device["rounds"]) | numbers(device["clients"], "/clients") == pytest.approx(
        expected, rel=1e-3, abs=1e-4
    )


def test_running_out_of_memory_halved_the_cohorts(runs: dict[str, Any]) -> None:
    assert "out of memory with 3 clients at once: going on with 1" in runs["stderr"]
