"""Benchmarks stay programs that run: they import what is there, and their contestants compute the same."""

import json
import os
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import benchmarks
from benchmarks.aggregation.jobs import by_torch
from benchmarks.cohort import contestants
from benchmarks.cohort.default_job import rounds
from benchmarks.flan8 import floors
from benchmarks.last_round import last_round
from benchmarks.main_job import line, scores
from benchmarks.same_results import jobs
from benchmarks.tuned import CHOICES
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.problems import check
from fedpl.runs.prepared import prepare
from tests import bounds
from tests.server.conftest import LORA, reference, task_vectors, vectors

PROGRAMS = sorted(module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."))


def test_what_is_watched_in_preparing_is_called(tmp_path: Path) -> None:
    """In a process of its own: its functions stay wrapped."""
    table = tmp_path / "rows.jsonl"
    lines = [
        {"text": f"text {i} of {i % 4}", "label": ["no", "yes"][i // 4 % 2], "client": f"c{i % 4}"}
        for i in range(160)
    ]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.preparing.program", str(table)],
        capture_output=True,
        text=True,
        cwd=Path(benchmarks.__path__[0]).parent,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["clients"], found["examples"]) == (4, 160)
    assert {"read", "split", "encode", "load the model", "join"} <= set(found["parts"])


def test_answers_without_learning() -> None:
    rows = [
        {"instruction": f"a {word}?\nOPTIONS:\n- yes\n- no", "output": word} for word in ("yes", "yes", "no")
    ]
    found = floors(rows)
    assert found == pytest.approx(
        {"constant": 200 / 3, "first option": 200 / 3, "random option": 50, "copy": found["copy"]}
    )
    assert 0 < found["copy"] < 50
    assert floors([{"instruction": "say it", "output": "say it"}])["copy"] == 100


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 20


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_imports_what_is_there(name: str) -> None:
    """Some set variables for JAX or Flower at import, which later tests and their processes must not get."""
    with patch.dict(os.environ):
        import_module(name)


@pytest.mark.parametrize("method", ["fedbip", "fedbip_l"])
def test_the_formula_in_torch_is_what_the_server_does(method: str) -> None:
    tau = task_vectors(0)
    rule = Config.of(method).aggregator
    state, found = rule.update(rule.init(jnp.asarray(reference()), 6), vectors(tau), LORA)
    assert len(np.unique(found.weights[0].round(3))) > 6, "no row fell back"
    base = torch.tile(torch.tensor(reference()), (6, 1))
    ranges = LORA.boundaries(rule.granularity)
    expected = by_torch(torch.tensor(tau), base.clone(), ranges)
    p, cosines = np.abs(found.weights).max(0), bounds.cosine(max(b - a for a, b in ranges))
    error = np.max([bounds.shares(similar, cosines) for similar in found.similarity], 0)
    bounds.within(state.personal, expected, 2 * bounds.product(p, tau, reference(), error=error))


@pytest.mark.parametrize("method", CHOICES)
def test_what_is_searched_is_a_setting_of_the_method(method: str) -> None:
    choice, preset = CHOICES[method], read(make_parser("fit", ""), [f"--method={method}"])
    for value in choice.values:
        check(with_changes(preset, {choice.setting: value}))


def test_jobs_that_are_compared_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])  # their files are named from there
    parser = make_parser("fit", "")
    for arguments in jobs().values():
        read(parser, arguments)


def test_every_way_to_train_gives_the_same_task_vectors(small_model: Path) -> None:
    """Within what float32 keeps of a task vector: 1e-4 of its length.

    Numbers of θ are below 1, stored to 2^-25 = 3e-8; the start and two steps in each of two ways are six such
    roundings of 2,114 numbers, √(6 · 2114) · 3e-8 = 3e-6 beside a length of 0.13 or more: 2.6e-5. AdamW
    divides gradients by their size, so theirs may add as much again. 2.5e-6 was measured, and 7e-4 for a
    learning rate off by 0.1 %.
    """
    data = contestants.clients(3, 2, 8)
    alone = contestants.make(data, str(small_model), 2, "cpu", "32-true")
    start = alone.foundation.initial()
    bare = contestants.peft_bare(alone, start)()
    assert bare.shape == (3, alone.foundation.layout.size)
    assert bare.abs().amax(1).min() > 0
    for way in (
        contestants.peft_with_lightning(alone, start),
        contestants.cohort(alone, start, 1),
        contestants.cohort(alone, start, 3),
        contestants.cohort(alone, start, 2, gradient_checkpointing=True),
    ):
        assert ((way() - bare).norm(dim=1) / bare.norm(dim=1)).max() < 1e-4
    second = contestants.peft_bare(alone, start, ["c1"])()
    assert torch.equal(second, bare[1:2])
    contestants.frozen_limit(alone)()


def test_the_default_jobs_rounds_and_a_rules_last_round(small_run: list[str]) -> None:
    config = read(make_parser("fit", ""), small_run)
    data = config.data.load(config.seed)
    found = [rounds(config, data, cohorts)() for cohorts in (True, False)]
    assert found[0]["test_accuracy"] == found[1]["test_accuracy"]
    assert found[0]["train_loss"] == pytest.approx(found[1]["train_loss"], rel=1e-3)
    last = last_round(prepare(config), config.aggregator, 1, 1, seed=config.seed)
    assert set(scores(last)) == {"test", "validation"}
    assert line(scores(last)).startswith("aggregated ")
