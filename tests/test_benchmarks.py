"""Benchmarks stay programs that run: they import what is there, and their contestants compute the same."""

import pkgutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

import benchmarks
from benchmarks.cohort import contestants
from benchmarks.cohort.default_job import rounds
from benchmarks.last_round import last_round
from benchmarks.main_job import line, scores
from fedpl.cli import make_parser, read
from fedpl.runs.prepared import prepare

PROGRAMS = sorted(module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks."))


def test_there_are_programs() -> None:
    assert len(PROGRAMS) > 20


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "benchmarks.aggregation.program"])
def test_every_program_imports_what_is_there(name: str) -> None:
    """But for the one that asks for a plugin of another device before anything else."""
    import_module(name)


def test_every_way_to_train_gives_the_same_task_vectors(small_model: Path) -> None:
    """Float32: steps of AdamW at 2e-3 move a number by some 1e-3 and differ where gradients round to zero."""
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
        assert (way() - bare).norm() / bare.norm() < 1e-3
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
