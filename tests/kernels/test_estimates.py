"""Sketches and distances: right on average, and honest about their error."""

import jax
import numpy as np
import pytest
from fedpl_kernels import gram, reference, sketch, squared_distances


def test_sketch_is_unbiased_and_its_error_bar_holds() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((6, 3000)) + 0.3 * rng.standard_normal(3000)).astype(np.float32)
    exact = reference.gram(x)
    runs = [sketch(x, 200, jax.random.key(seed)) for seed in range(60)]
    standard = np.array([(np.asarray(run.gram) - exact) / np.asarray(run.standard_error) for run in runs])
    assert np.abs(standard.mean(0)).max() < 4 / np.sqrt(60)
    off = standard[:, *np.triu_indices(6, 1)]
    assert 0.7 < off.std() < 1.15  # the bar is a bound, and close to the truth
    diagonal = standard[:, np.arange(6), np.arange(6)]
    assert diagonal.std() < 1.15


def test_sketch_of_energy_in_few_columns_is_unbiased_too() -> None:
    x = np.zeros((2, 1000), np.float32)
    x[:, ::100] = [[1.0], [0.5]]  # the same remainder modulo the buckets
    products = [np.asarray(sketch(x, 100, jax.random.key(seed)).gram) for seed in range(200)]
    np.testing.assert_allclose(np.mean(products, 0), reference.gram(x), rtol=0.1)
    assert np.std([p[0, 1] for p in products]) < 3 * np.sqrt(2 * 5.0**2 / 100)


def test_columns_of_the_last_incomplete_run_count_once() -> None:
    x = np.zeros((2, 1030), np.float32)
    x[:, 930:] = 1.0  # the last run of 100 begins at 1,000 and reaches back to 930
    products = [np.asarray(sketch(x, 100, jax.random.key(seed)).gram)[0, 1] for seed in range(200)]
    assert abs(np.mean(products) - 100) < 4 * np.sqrt(2 * 100**2 / 100 / 200)


def test_sketch_depends_on_the_key_alone() -> None:
    x = np.ones((3, 50), np.float32)
    first, again, other = (sketch(x, 10, jax.random.key(seed)).vectors for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("dim", [0, 51])
def test_sketch_refuses_useless_sizes(dim: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 50"):
        sketch(np.ones((3, 50), np.float32), dim, jax.random.key(0))


@pytest.mark.parametrize("step", [1.0, 1e-2, 1e-4])
def test_distances_are_within_their_stated_error(step: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(4000) + step * rng.standard_normal((5, 4000))).astype(np.float32)
    exact = np.array([[np.sum((np.float64(a) - b) ** 2) for b in x] for a in x])
    found = squared_distances(gram(x))
    assert (np.abs(np.asarray(found.squared) - exact) <= np.asarray(found.error)).all()
    informative = np.asarray(found.squared)[0, 1] > 10 * np.asarray(found.error)[0, 1]
    assert informative == (step >= 1e-2)
