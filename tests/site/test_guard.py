"""By which rule a client's own validation data choose a model, and where it does not apply."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from fedpl.config import Config
from fedpl.data import Columns, FederatedData, Split, TextFiles
from fedpl.errors import UserError
from fedpl.problems import problems
from fedpl.site.guard import check, choose
from fedpl.tasks import Choice, Generation

MODELS = ("aggregated", "tuned", "mixture")


def right(*answers: int) -> np.ndarray:
    return np.array(answers, float)


@pytest.mark.parametrize(
    ("aggregated", "tuned", "mixture", "chosen"),
    [
        (right(1, 1, 0, 0), right(1, 1, 0, 0), right(1, 1, 0, 0), "aggregated"),
        (right(1, 1, 1, 1), right(0, 0, 0, 0), right(1, 0, 0, 0), "aggregated"),
        (right(0, 0, 0, 0, 1), right(1, 1, 1, 1, 1), right(1, 1, 1, 0, 1), "tuned"),
        (right(0, 0, 0, 0, 0), right(1, 1, 0, 0, 0), right(1, 1, 1, 1, 0), "mixture"),
        (right(0, 1, 0, 1, 0, 1), right(1, 0, 1, 0, 1, 1), right(0, 1, 0, 1, 0, 1), "aggregated"),
        (right(0), right(1), right(1), "aggregated"),  # one example says nothing
    ],
)
def test_the_aggregate_unless_another_is_better_for_certain(
    aggregated: np.ndarray, tuned: np.ndarray, mixture: np.ndarray, chosen: str
) -> None:
    assert MODELS[choose([aggregated, tuned, mixture])] == chosen


@pytest.mark.parametrize("examples", [5, 20, 40])
def test_models_that_are_as_good_are_taken_no_oftener_than_a_standard_error_is_exceeded(
    examples: int,
) -> None:
    rng, draws = np.random.default_rng(examples), 1000
    taken = sum(choose(list(rng.integers(0, 2, (2, examples)).astype(float))) > 0 for _ in range(draws))
    assert taken <= binom.ppf(0.999, draws, 0.1587)


def test_examples_are_judged_one_by_one() -> None:
    assert Choice().goods(
        [(1, 7, 0, 0), (1, 7, 1, 0), (1, 3, 0, 1), (1, 3, 1, 1)], [-1.0, -2.0, -1.0, -2.0]
    ) == [
        0.0,
        1.0,
    ]
    assert Generation().goods([(2,), (4,)], [-1.0, -1.0]) == pytest.approx([-0.5, -0.25])


def test_what_does_not_go_with_a_guard_is_refused(small_table: Path) -> None:
    for method, why in (("feddpa", "uses two adapters at once"), ("flora", "changes the frozen weights")):
        (line,) = problems(Config.of(method, client__guard="validation", baselines=[]))
        assert line.startswith(f"client.guard: '{method}' {why}")
    assert not problems(Config.of("ifca", client__guard="validation"))
    clients = list(TextFiles((str(small_table),), Columns(split="split")).load(0).clients)
    clients[1] = dataclasses.replace(clients[1], validation=Split((), ()))
    with pytest.raises(UserError, match=rf"client '{clients[1].id}' has none \(1 of 3 clients\)"):
        check(FederatedData(tuple(clients), ("no", "yes")))
