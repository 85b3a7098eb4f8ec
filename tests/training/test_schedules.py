"""Schedules depend on round, step and budget alone."""

import math
from typing import Any

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from fedpl.config import ClientConfig
from fedpl.objectives import FedALA
from fedpl.objectives.phases import PLAIN
from fedpl.training.schedules import Schedule
from fedpl.training.session import Assignment, LocalSession
from tests.training.facade import ClientTrainer


def test_no_schedule_is_no_factor() -> None:
    assert Schedule().factors(3, 7, 5) == ()
    assert Schedule(over="run").factors(3, 7, 5) == ()
    assert not Schedule(over="run").needs_rounds
    assert ClientConfig().rates == Schedule()


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule("linear"), (1.0, 0.75, 0.5, 0.25)),
        (Schedule("cosine"), tuple((1 + math.cos(math.pi * i / 4)) / 2 for i in range(4))),
        (Schedule("constant", warmup=2), (1 / 3, 2 / 3, 1.0, 1.0)),
        (Schedule("constant", warmup=0.5), (1 / 3, 2 / 3, 1.0, 1.0)),
        (Schedule("linear", warmup=2), (1 / 3, 2 / 3, 1.0, 0.5)),
        (Schedule("linear", warmup=7), (1 / 8, 2 / 8, 3 / 8, 4 / 8)),
    ],
)
def test_curves(schedule: Schedule, expected: tuple[float, ...]) -> None:
    assert schedule.factors(1, 4, 3) == pytest.approx(expected)
    assert schedule.factors(2, 4, 3) == pytest.approx(expected), "anew in every round"


@pytest.mark.parametrize("make", [get_linear_schedule_with_warmup, get_cosine_schedule_with_warmup])
def test_what_falls_is_what_transformers_has(make: Any) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    known = make(optimiser, 3, 11)
    rates = []
    for _ in range(11):
        rates += known.get_last_lr()
        optimiser.step()
        known.step()
    found = Schedule("linear" if "linear" in make.__name__ else "cosine", warmup=3).factors(1, 11, 1)
    assert found[3:] == pytest.approx(rates[3:])


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.2, 6])
def test_rounds_of_a_run_are_parts_of_one_curve(shape: Any, warmup: float) -> None:
    whole = Schedule(shape, "round", warmup).factors(1, 20, 1)
    parts = [Schedule(shape, "run", warmup).factors(round, 4, 5) for round in range(1, 6)]
    assert sum(parts, ()) == pytest.approx(whole)
    assert all(0 < factor <= 1 for factor in sum(parts, ()))


def test_a_client_has_its_own_curve_and_plain_steps_none(
    make_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer: ClientTrainer = make_trainer(schedule="linear", warmup=0.0, objective=FedALA())
    learners = [trainer.learner(client, 2) for client in ("c0", "c1")]
    for learner in learners:
        budget = len(learner.order)
        assert learner.factors == tuple(1 - step / budget for step in range(budget))
    assert len(learners[0].factors) != len(learners[1].factors)
    session = LocalSession(trainer.backend, [Assignment("c1", trainer.initial())], 2)
    phases: list[Any] = []
    kept = trainer.backend.fit

    def fit(theta: torch.Tensor, learners: Any, *rest: Any) -> list[float]:
        phases.append(learners[0].factors)
        return kept(theta, learners, *rest)

    monkeypatch.setattr(trainer.backend, "fit", fit)
    session.fit(PLAIN._replace(plain_lr=0.1))
    session.fit(PLAIN)
    assert phases[0] == ()
    assert phases[1] == learners[1].factors


def test_settings() -> None:
    assert ClientConfig(schedule="linear", warmup=-1.0).problems() == [
        "client.warmup: must not be negative, got -1.0"
    ]
