"""Whether clients are worse off than alone, over all of them at once."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from fedpl.compare.paired import harm_probability, rejected
from fedpl.compare.statistics import compare
from fedpl.compare.tables import caption
from tests.made_up import summary as made_up


def test_all_signs_are_gone_through() -> None:
    assert harm_probability([-0.1, -0.2, -0.3]) == 1 / 8
    assert harm_probability([0.1, 0.2, 0.3]) == 1.0
    assert harm_probability([0.0, 0.0]) == 1.0
    assert harm_probability([-0.1, 0.1]) == 3 / 4


def test_many_clients_are_drawn_the_same_each_time() -> None:
    gains = list(np.random.default_rng(0).normal(-0.1, 0.1, 40))
    assert harm_probability(gains) == harm_probability(gains) == pytest.approx(1e-4)


@pytest.mark.parametrize("clients", [6, 12, 20])
def test_chance_is_called_harm_as_often_as_it_may(clients: int) -> None:
    rng, draws = np.random.default_rng(clients), 200
    found = sum(harm_probability(list(rng.normal(size=clients))) <= 0.05 for _ in range(draws))
    assert found <= binom.ppf(0.999, draws, 0.05)


def test_holm_stops_at_the_first_that_stands() -> None:
    assert rejected({"a": 0.04, "b": 0.01, "c": 0.02}) == ("a", "b", "c")
    assert rejected({"a": 0.2, "b": 0.01, "c": 0.03}) == ("b",)
    assert rejected({}) == ()


def test_a_comparison_says_who_is_worse_than_alone(tmp_path: Path) -> None:
    names = "abcdefgh"
    values = {"local": 0.8, "bad": 0.7, "good": 0.9}
    for method, value in values.items():
        (tmp_path / method).mkdir()
        made_up(dict.fromkeys(names, value)).write(tmp_path / method)
    found = compare({method: {0: tmp_path / method} for method in values}, 0.02)
    assert found.methods["local"].aggregated.harm_probability is None
    assert found.methods["bad"].tuned.harm_probability == 1 / 2**8
    assert caption(found).count("5 % by Holm): bad θ̄, bad θ;") == 1
    del values["bad"]
    found = compare({method: {0: tmp_path / method} for method in values}, 0.02)
    assert "5 % by Holm): none;" in caption(found)
