"""What holds for every preset in ``configs/method``: one suite over all of them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.config import Config
from fedpl.server import Aggregator
from fedpl.server.state import ServerState, load_state, save_state
from tests import bounds
from tests.server.conftest import COSINE, LORA, dense, reference, task_vectors, vectors

ROOT = Path(__file__).parents[2]
METHODS = sorted((ROOT / "configs" / "method").glob("*.yaml"))
N = 6
SAME_ORDER = np.arange(N)
GROUPS = ("a", "b") * 3


def rule_of(path: Path) -> Aggregator:
    return Config.of(path.stem).aggregator


@pytest.fixture(params=METHODS, ids=lambda path: path.stem)
def rule(request: pytest.FixtureRequest) -> Aggregator:
    return rule_of(request.param)


def begin(rule: Aggregator, order: np.ndarray = SAME_ORDER) -> ServerState:
    state = rule.init(jnp.asarray(reference()), len(order))
    if not rule.receive.several:
        return state
    return rule.settle(state, np.asarray(order % 2))


def run(rule: Aggregator, rounds: list[np.ndarray], order: np.ndarray = SAME_ORDER, **given) -> ServerState:
    state = begin(rule, order)
    groups = tuple(GROUPS[i] for i in order)
    for tau in rounds:
        state, found = rule.update(state, vectors(tau[order], groups=groups, **given), LORA)
        assert np.isfinite(np.asarray(found.weights)).all()
    return state


ROUNDS = [task_vectors(0), task_vectors(1)]
# What a round may differ by when its sums are added in another order: cosines by `COSINE` each, a row of N of
# them is divided by a sum that may be as small as the floor, and weighs vectors of this size.
FLOOR = 0.2
ROUNDING = N / FLOOR * 2 * COSINE * max(np.abs(tau).max() for tau in ROUNDS)
ALIKE = ROUNDING * FLOOR / N  # where all cosines are 1, and so no row's sum is small


def test_the_order_of_clients_does_not_matter(rule: Aggregator) -> None:
    order = np.array([4, 2, 0, 5, 1, 3])
    plain, turned = run(rule, ROUNDS), run(rule, ROUNDS, order)
    bounds.within(turned.personal, np.asarray(plain.personal)[order], len(ROUNDS) * ROUNDING)


def test_rows_sum_to_one(rule: Aggregator) -> None:
    _, found = rule.update(begin(rule), vectors(ROUNDS[0], groups=GROUPS), LORA)
    weights = np.asarray(found.weights, np.float64)
    bounds.within(weights.sum(-1), np.ones(weights.shape[:-1]), 2 * bounds.shares(weights).sum(-1))


def test_masked_clients_move_nobody(rule: Aggregator) -> None:
    mask = [True, True, True, True, False, True]
    changed = [tau.copy() for tau in ROUNDS]
    for tau in changed:
        tau[4] = 1e6
    plain, other = run(rule, ROUNDS, mask=mask), run(rule, changed, mask=mask)
    assert np.array_equal(plain.personal, other.personal)
    if not rule.weighting.one_for_all and not rule.receive.several:
        assert np.array_equal(plain.personal[4], reference())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_moves_nobody(rule: Aggregator, value: float) -> None:
    broken = [tau.copy() for tau in ROUNDS]
    for tau in broken:
        tau[4, 5] = value
    mask = [True, True, True, True, False, True]
    found = run(rule, broken)
    assert np.isfinite(np.asarray(found.personal)).all()
    assert np.array_equal(found.personal, run(rule, broken, mask=mask).personal)


def test_zero_vectors_are_no_trouble(rule: Aggregator) -> None:
    some = ROUNDS[0].copy()
    some[[1, 2]] = 0
    for tau in (some, np.zeros_like(some)):
        found = run(rule, [tau])
        assert np.isfinite(np.asarray(found.personal)).all()


def test_one_client_alone(rule: Aggregator) -> None:
    state = rule.init(jnp.asarray(reference()), 1)
    if rule.receive.several:
        state = rule.settle(state, np.zeros(1, int))
    start = np.asarray(state.personal).copy()
    state, _ = rule.update(state, vectors(ROUNDS[0][:1], groups=("a",)), LORA)
    if not rule.combine.shifts_base and type(rule.combine).__name__ == "FactorWise":
        bounds.within(state.personal, start + ROUNDS[0][:1], ALIKE)
    assert np.isfinite(np.asarray(state.personal)).all()


def test_duplicates_are_treated_alike(rule: Aggregator) -> None:
    tau = ROUNDS[0].copy()
    tau[2] = tau[0]
    found = np.asarray(run(rule, [tau]).personal)
    bounds.within(found[2], found[0], ROUNDING)


def test_identical_clients_are_averaged_or_keep_their_own_which_is_the_same(rule: Aggregator) -> None:
    state = rule.init(jnp.asarray(reference()), N)
    if rule.receive.several:
        state = rule.settle(state, np.zeros(N, int))  # all of them begin at the first model
    tau = np.tile(ROUNDS[0][:1], (N, 1))
    expected = np.asarray(state.personal) + tau
    state, _ = rule.update(state, vectors(tau, groups=GROUPS), LORA)
    found = np.asarray(state.personal)
    if not rule.combine.shifts_base and type(rule.combine).__name__ != "ProductSpace":
        bounds.within(found, expected, ALIKE)
    # Other factors may stand for the same weights, part of which may have gone into the frozen ones.
    residual = np.asarray(0.0 if state.residual is None else state.residual)
    head = slice(next(entry.start for entry in LORA.entries if entry.kind == "head"), None)
    for row, own in zip(found, expected, strict=True):
        weights, own_weights = (np.concatenate([w.ravel() for w in dense(theta)]) for theta in (row, own))
        size = (
            LORA.scale * 3 * 2 * np.abs(own).max()
        )  # a product of rank 3 passes on what its factors are off by
        bounds.within(weights + residual, own_weights, size * ALIKE)
        bounds.within(row[head], own[head], ALIKE)


def test_the_state_survives_its_file_between_rounds(rule: Aggregator, tmp_path: Path) -> None:
    through = run(rule, ROUNDS)
    half = run(rule, ROUNDS[:1])
    save_state(half, tmp_path / "state.safetensors")
    loaded = load_state(tmp_path / "state.safetensors")
    names = [{(choice, name) for choice in s.memory for name in s.of(choice)} for s in (loaded, half)]
    assert names[0] == names[1]
    assert (loaded.residual is None) == (half.residual is None)
    again, _ = rule.update(loaded, vectors(ROUNDS[1], groups=GROUPS), LORA)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(through), strict=True):
        np.testing.assert_array_equal(one, other)


def test_changing_participation_does_not_compile_again(rule: Aggregator) -> None:
    masks = np.random.default_rng(0).random((6, N)) < 0.6
    masks[:, :2] = True
    masks[:2, 5] = False
    state = begin(rule)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    try:
        for i, mask in enumerate(masks):
            if i == 2:
                compiled.clear()
            present = vectors(ROUNDS[i % 2], mask=mask.tolist(), groups=GROUPS)
            state, _ = rule.update(state, present, LORA)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not compiled
