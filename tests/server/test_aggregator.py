"""The server rule against the formula written out by hand in float64."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.records.layout import AdapterLayout
from fedpl.server import Aggregator, BySize, Cosine, FedBip, Local, Uniform, Weighting
from fedpl.server.state import TaskVectors, load_state, save_state
from tests import bounds

LAYOUT = AdapterLayout.of({"layer.0.lora_A": (3, 5), "layer.1.lora_A": (4, 5), "head.weight": (2, 3)})


def vectors(
    matrix: np.ndarray, mask: list[bool] | None = None, sizes: list[int] | None = None
) -> TaskVectors:
    n = len(matrix)
    return TaskVectors(
        jnp.asarray(matrix, jnp.float32), jnp.array(mask or [True] * n), jnp.array(sizes or [1] * n)
    )


def by_hand(tau: np.ndarray, floor: float, negatives: str = "keep") -> tuple[np.ndarray, np.ndarray]:
    """p_ik = cos(τᵢ, τₖ) / Σⱼ cos(τᵢ, τⱼ), client by client, pair by pair; and what float32 may be off by."""
    tau = tau.astype(np.float64)
    n = len(tau)
    weights, error = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        row = np.zeros(n)
        for k in range(n):
            lengths = np.linalg.norm(tau[i]) * np.linalg.norm(tau[k])
            row[k] = tau[i] @ tau[k] / lengths if lengths else 0.0
        row = {"keep": row, "clip": np.maximum(row, 0), "abs": np.abs(row)}[negatives]
        if row.sum() >= floor:
            weights[i], error[i] = row / row.sum(), bounds.shares(row, bounds.cosine(tau.shape[1]))
        else:
            weights[i] = np.eye(n)[i]
    return weights, error


CASES = {
    "random": np.random.default_rng(0).normal(size=(7, LAYOUT.size)),
    "aligned": np.random.default_rng(1).normal(size=(5, LAYOUT.size)) + 3,
    "zero": np.random.default_rng(2).normal(size=(4, LAYOUT.size)) * np.array([[1], [0], [1], [0]]),
    "all zero": np.zeros((3, LAYOUT.size)),
    "opposite": np.outer([1.0, -1.0, 1.0], np.arange(1, LAYOUT.size + 1)),
    "one client": np.random.default_rng(3).normal(size=(1, LAYOUT.size)),
    "orthogonal": np.eye(4, LAYOUT.size),
    "duplicates": np.repeat(np.random.default_rng(4).normal(size=(2, LAYOUT.size)), 2, axis=0),
    "outlier": np.vstack([np.random.default_rng(5).normal(size=(5, LAYOUT.size)) + 1, -np.ones(LAYOUT.size)]),
}


@pytest.mark.parametrize("negatives", ["keep", "clip", "abs"])
@pytest.mark.parametrize("case", CASES)
def test_fedbip_is_the_paper_s_formula(case: str, negatives: str) -> None:
    tau = CASES[case].astype(np.float32)
    start = np.random.default_rng(9).normal(size=tau.shape).astype(np.float32)
    aggregator = Aggregator(weighting=FedBip(negatives, floor=0.2))
    state = aggregator.init(jnp.zeros(LAYOUT.size), len(tau))._replace(personal=jnp.asarray(start))
    state, aggregation = aggregator.update(state, vectors(tau), LAYOUT)
    expected, error = by_hand(tau, 0.2, negatives)
    bounds.within(aggregation.weights[0], expected, error)
    mixed = start + expected @ tau.astype(np.float64)
    bounds.within(state.personal, mixed, bounds.product(expected, tau, start, error=error))
    assert state.round == 1


def test_fedbip_l_is_fedbip_in_every_block_by_itself() -> None:
    tau = CASES["random"].astype(np.float32)
    aggregator = Aggregator(granularity="block", weighting=FedBip(floor=0.2, bound=None))
    state, aggregation = aggregator.update(aggregator.init(jnp.zeros(LAYOUT.size), 7), vectors(tau), LAYOUT)
    for block, (start, stop) in enumerate(LAYOUT.boundaries("block")):
        columns = tau[:, start:stop]
        expected, error = by_hand(columns, 0.2)
        bounds.within(aggregation.weights[block], expected, error)
        mixed, allowed = expected @ columns.astype(np.float64), bounds.product(expected, columns, error=error)
        bounds.within(state.personal[:, start:stop], mixed, allowed)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        (Local(), np.eye(3)),
        (Uniform(), np.full((3, 3), 1 / 3)),
        (BySize(), np.tile([0.1, 0.2, 0.7], (3, 1))),
    ],
)
@pytest.mark.parametrize("granularity", ["model", "block", "tensor"])
def test_local_only_and_federated_averaging(
    weighting: Weighting, expected: np.ndarray, granularity: str
) -> None:
    tau = np.random.default_rng(0).normal(size=(3, LAYOUT.size)).astype(np.float32)
    aggregator = Aggregator(granularity=granularity, weighting=weighting)
    state = aggregator.init(jnp.ones(LAYOUT.size), 3)
    state, aggregation = aggregator.update(state, vectors(tau, sizes=[10, 20, 70]), LAYOUT)
    assert aggregation.weights.shape == (len(LAYOUT.boundaries(granularity)), 3, 3)
    error = bounds.shares(expected)
    bounds.within(aggregation.weights, np.broadcast_to(expected, aggregation.weights.shape), error)
    allowed = bounds.product(expected, tau, np.ones(LAYOUT.size), error=error)
    bounds.within(state.personal, 1 + expected @ tau, allowed)


@pytest.mark.parametrize("weighting", [FedBip(), Local()])
def test_an_absent_client_keeps_its_aggregate_bit_for_bit_and_influences_nobody(weighting: Weighting) -> None:
    tau = np.random.default_rng(0).normal(size=(4, LAYOUT.size)).astype(np.float32)
    start = np.random.default_rng(1).normal(size=tau.shape).astype(np.float32)
    aggregator = Aggregator(weighting=weighting)

    def personal(absent: float) -> np.ndarray:
        changed = tau.copy()
        changed[2] = absent
        state = aggregator.init(jnp.zeros(LAYOUT.size), 4)._replace(personal=jnp.asarray(start))
        present = vectors(changed, mask=[True, True, False, True])
        return np.asarray(aggregator.update(state, present, LAYOUT)[0].personal)

    assert np.array_equal(personal(1.0)[2], start[2])
    assert np.array_equal(personal(1.0), personal(1e6))
    assert np.array_equal(personal(1.0), personal(np.nan))
    assert not np.array_equal(personal(1.0)[0], start[0])


@pytest.mark.parametrize("weighting", [FedBip(), Local(), Uniform(), BySize()])
@pytest.mark.parametrize("granularity", ["model", "block"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_moves_nobody(
    weighting: Weighting, granularity: str, value: float
) -> None:
    tau = np.random.default_rng(0).normal(size=(4, LAYOUT.size)).astype(np.float32)
    tau[1, 3] = value
    aggregator = Aggregator(granularity=granularity, weighting=weighting)
    state = aggregator.init(jnp.ones(LAYOUT.size), 4)
    personal = np.asarray(aggregator.update(state, vectors(tau), LAYOUT)[0].personal)
    assert np.isfinite(personal).all()
    # It stays where it is, or receives the one model that everyone does.
    expected = personal[0] if weighting.one_for_all else np.ones(LAYOUT.size)
    assert np.array_equal(personal[1], expected)
    rest = Aggregator(granularity=granularity, weighting=weighting)
    kept = tau[[0, 2, 3]]
    state, found = rest.update(rest.init(jnp.ones(LAYOUT.size), 3), vectors(kept), LAYOUT)
    p = np.abs(found.weights).max(0)
    # Rows of cosines of these smallest ranges, whose sums are at least the floor.
    error = 2 * 3 / 0.2 * bounds.cosine(LAYOUT.size) * p
    allowed = 2 * bounds.product(p, kept, np.ones(LAYOUT.size), error=error)
    bounds.within(personal[[0, 2, 3]], state.personal, allowed)


def test_the_server_s_step_size_scales_the_step() -> None:
    tau = CASES["random"].astype(np.float32)

    def step(rate: float) -> np.ndarray:
        aggregator = Aggregator(server_lr=rate)
        state = aggregator.init(jnp.zeros(LAYOUT.size), 7)
        return np.asarray(aggregator.update(state, vectors(tau), LAYOUT)[0].personal)

    np.testing.assert_array_equal(step(0.5), step(1.0) / 2)  # halving rounds nothing


def test_similarity_is_the_cosine() -> None:
    tau = CASES["zero"].astype(np.float32)
    similarity = Cosine()(jnp.asarray(tau @ tau.T)[None], jnp.ones(4, bool))[0]
    a, b = tau[0].astype(np.float64), tau[2].astype(np.float64)
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    bounds.within(similarity[0, 2], expected, bounds.cosine(LAYOUT.size))
    assert np.all(np.asarray(similarity)[1, [0, 2, 3]] == 0)


def test_settings_that_cannot_work_are_named() -> None:
    wrong = Aggregator(weighting=FedBip(floor=0.0), server_lr=0.0).problems()
    assert [line.split(":")[0] for line in wrong] == ["aggregator.weighting.floor", "aggregator.server_lr"]


def test_state_survives_its_file(tmp_path: Path) -> None:
    aggregator = Aggregator()
    state = aggregator.init(jnp.arange(5.0), 3)._replace(round=4)
    save_state(state, tmp_path / "server.safetensors")
    loaded = load_state(tmp_path / "server.safetensors")
    assert loaded.round == 4
    assert np.array_equal(loaded.personal, state.personal)
    assert np.array_equal(loaded.reference, state.reference)
    assert [path.name for path in tmp_path.iterdir()] == ["server.safetensors"]


def test_a_truncated_or_foreign_state_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "server.safetensors"
    save_state(Aggregator().init(jnp.arange(3.0), 2), path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cannot be read as a file of fedpl|is not a server state"):
            load_state(path)
    with pytest.raises(UserError, match=r"cannot be read as a file of fedpl|is not a server state"):
        load_state(tmp_path / "absent")
