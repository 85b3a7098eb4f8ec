"""Every distribution of W&B's sweep schema: the right law, or a refusal by name."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fedpl.sweep.space import Dimension, read_space

U = (np.arange(2000) + 0.5) / 2000


def dimension(spec: dict[str, Any], method: str = "random") -> Dimension:
    dimensions, wrong = read_space({"client.lr": spec}, method)
    assert wrong == []
    return dimensions[0]


def wrong_with(spec: Any, method: str = "random") -> str:
    _, wrong = read_space({"x": spec}, method)
    assert wrong
    return "; ".join(wrong)


def drawn(spec: dict[str, Any]) -> np.ndarray:
    return np.array([dimension(spec).at(u) for u in U])


@pytest.mark.parametrize(
    ("spec", "law"),
    [
        ({"min": 0.5, "max": 2}, stats.uniform(0.5, 1.5)),
        ({"distribution": "uniform", "min": 1, "max": 3}, stats.uniform(1, 2)),
        ({"distribution": "log_uniform", "min": -5, "max": -1}, stats.loguniform(math.exp(-5), math.exp(-1))),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 0.1}, stats.loguniform(1e-4, 0.1)),
        (
            {"distribution": "inv_log_uniform", "min": 1, "max": 5},
            stats.loguniform(math.exp(-5), math.exp(-1)),
        ),
        ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 0.1}, stats.loguniform(1e-4, 0.1)),
        ({"distribution": "normal", "mu": 2, "sigma": 3}, stats.norm(2, 3)),
        ({"distribution": "normal"}, stats.norm()),
        ({"distribution": "log_normal", "mu": -1, "sigma": 0.5}, stats.lognorm(0.5, scale=math.exp(-1))),
        ({"distribution": "beta", "a": 2, "b": 5}, stats.beta(2, 5)),
        ({"distribution": "beta"}, stats.uniform()),
    ],
)
def test_continuous_laws(spec: dict[str, Any], law: Any) -> None:
    np.testing.assert_allclose(drawn(spec), law.ppf(U), rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "law"),
    [
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 2}, stats.uniform(0, 10)),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, stats.uniform()),
        ({"distribution": "q_log_uniform", "min": 0, "max": 5, "q": 3}, stats.loguniform(1, math.exp(5))),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 64}, stats.loguniform(1, 64)),
        ({"distribution": "q_normal", "mu": 5, "sigma": 2, "q": 0.5}, stats.norm(5, 2)),
        ({"distribution": "q_log_normal", "mu": 2, "sigma": 1}, stats.lognorm(1, scale=math.exp(2))),
        ({"distribution": "q_beta", "a": 2, "b": 2, "q": 0.1}, stats.beta(2, 2)),
    ],
)
def test_quantised_laws(spec: dict[str, Any], law: Any) -> None:
    q = spec.get("q", 1)
    np.testing.assert_allclose(drawn(spec), np.round(law.ppf(U) / q) * q, atol=1e-9)
    assert all(isinstance(dimension(spec).at(u), int) for u in (0.1, 0.9)) == isinstance(q, int)


def test_whole_numbers_are_equally_likely() -> None:
    values, times = np.unique(drawn({"min": 2, "max": 5}), return_counts=True)
    assert values.tolist() == [2, 3, 4, 5]
    assert times.tolist() == [500] * 4
    assert dimension({"min": 2, "max": 5}).distribution == "int_uniform"


def test_choices_with_probabilities() -> None:
    values, times = np.unique(
        drawn({"values": ["a", "b", "c"], "probabilities": [0.5, 0, 0.5]}), return_counts=True
    )
    assert dict(zip(values.tolist(), times.tolist(), strict=True)) == {"a": 1000, "c": 1000}


def test_constants_and_choices() -> None:
    assert dimension({"value": 3}).choices == [3]
    assert dimension({"values": [[1], {"a": 2}, "x"]}).choices == [[1], {"a": 2}, "x"]
    assert dimension({"distribution": "categorical", "values": [True]}).choices == [True]


def test_the_ends_are_finite() -> None:
    for spec in ({"distribution": "normal"}, {"distribution": "beta"}, {"distribution": "q_log_normal"}):
        assert all(math.isfinite(dimension(spec).at(u)) for u in (0.0, 1.0))
    values = {"distribution": "log_uniform_values", "min": 0.0003, "max": 0.01}
    assert [dimension(values).at(u) for u in (0.0, 1.0)] == pytest.approx([0.0003, 0.01])
    assert dimension(values).at(0.0) >= 0.0003


def test_grids() -> None:
    assert dimension({"values": [3, 1]}, "grid").grid() == [3, 1]
    assert dimension({"min": 1, "max": 3}, "grid").grid() == [1, 2, 3]
    quantised = {"distribution": "q_uniform", "min": 0, "max": 0.4, "q": 0.1}
    assert dimension(quantised, "grid").grid() == [0.0, 0.1, 0.2, 0.3]


def test_nested_parameters_become_dotted_keys() -> None:
    nested = {"client": {"parameters": {"lr": {"value": 1}, "deep": {"parameters": {"er": {"value": 2}}}}}}
    dimensions, wrong = read_space(nested, "random")
    assert wrong == []
    assert [d.name for d in dimensions] == ["client.lr", "client.deep.er"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"distribution": "cauchy", "min": 0, "max": 1}, "a distribution among"),
        ({"mu": 0, "sigma": 1}, "a distribution among"),
        (3, "got 3"),
        ({"distribution": "uniform", "min": 0}, "uniform needs max"),
        ({"distribution": "uniform", "min": 0, "max": 1, "q": 1}, "uniform knows no q"),
        ({"min": 1, "max": 1}, "min must be below max"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "min must be positive"),
        ({"distribution": "int_uniform", "min": 0, "max": 1.5}, "whole numbers"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "q must be positive"),
        ({"distribution": "normal", "sigma": 0}, "sigma must be positive"),
        ({"distribution": "beta", "a": -1}, "a and b must be positive"),
        ({"distribution": "uniform", "min": "a", "max": 1}, "min must be a number"),
        ({"values": []}, "at least one value"),
        ({"values": "abc"}, "at least one value"),
        ({"value": None}, "'null' in quotes"),
        ({"values": ["a", "b"], "probabilities": [1]}, "one number per value"),
        ({"values": ["a", "b"], "probabilities": [0.5, 0.6]}, "sum 1"),
    ],
)
def test_what_is_refused(spec: Any, message: str) -> None:
    assert message in wrong_with(spec)


@pytest.mark.parametrize("kind", ["uniform", "log_uniform_values", "q_log_uniform_values", "inv_log_uniform"])
def test_a_grid_needs_steps(kind: str) -> None:
    assert f"not {kind}" in wrong_with({"distribution": kind, "min": 1, "max": 2}, "grid")
    assert "not normal" in wrong_with({"distribution": "normal"}, "grid")


def test_probabilities_are_for_random_search() -> None:
    spec = {"values": [1, 2], "probabilities": [0.5, 0.5]}
    assert "for method random" in wrong_with(spec, "bayes")
    assert "not categorical_w_probabilities" in wrong_with(spec, "grid")
