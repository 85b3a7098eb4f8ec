"""The weighting `Groups` within the server's rounds: who is compared, what is remembered, who is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.records.layout import AdapterLayout
from fedpl.server import Aggregator, Groups, InnerProduct, Subject, Trimmed
from fedpl.server.state import ServerState, TaskVectors, load_state, save_state

WIDE = AdapterLayout.of({"head.weight": (2, 400)}, scale=1.0)
RULE = Aggregator(Subject(average="products"), weighting=Groups())


def came(seed: int, labels: list[int], size: float = 0.8, mask: list[bool] | None = None) -> TaskVectors:
    """Task vectors of groups, noise of length 1."""
    rng, n = np.random.default_rng(seed), len(labels)
    found = rng.normal(size=(n, WIDE.size)) / np.sqrt(WIDE.size)
    for client, label in enumerate(labels):
        found[client, label] += size
    present = jnp.array(mask or [True] * n)
    return TaskVectors(jnp.asarray(found, jnp.float32), present, jnp.full(n, 32))


def start(n: int) -> ServerState:
    return RULE.init(jnp.zeros(WIDE.size), n)


def weights(
    state: ServerState, vectors: TaskVectors, rule: Aggregator = RULE
) -> tuple[ServerState, np.ndarray]:
    state, found = rule.update(state, vectors, WIDE)
    return state, np.asarray(found.weights)[0]


def test_no_head_is_needed_and_groups_are_averaged() -> None:
    labels = [0, 1] * 4
    _, found = weights(start(8), came(0, labels))
    same = np.equal.outer(labels, labels)
    assert found[same].sum() > 0.9 * 8
    assert found.sum(1) == pytest.approx(np.ones(8))


def test_strangers_keep_their_own() -> None:
    _, found = weights(start(8), came(1, list(range(8))))
    assert (found == np.eye(8)).all()


def test_opposed_clients_are_not_averaged() -> None:
    vectors = came(2, [0] * 8, mask=[True, True] + [False] * 6)
    _, found = weights(start(8), vectors._replace(matrix=vectors.matrix.at[1].set(-vectors.matrix[0])))
    assert (found == np.eye(8)).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_clients(n: int) -> None:
    _, found = weights(start(8), came(3, [0] * 8, 2.0, [True] * n + [False] * (8 - n)))
    assert found[:n, :n] == pytest.approx(np.full((n, n), 1 / n), abs=0.1)


def test_who_returns_is_in_the_group_that_it_was_found_in() -> None:
    """With three clients there, one round says little; what was seen of them and the others says more."""
    labels = [0, 1] * 4
    state, _ = weights(start(8), came(4, labels))
    few = [True, True, True] + [False] * 5
    _, found = weights(state, came(5, labels, 0.1, few))
    assert found[0, 2] > 0.3 > 0.2 > found[0, 1]
    assert (found[3:, 3:] == np.eye(5)).all()  # the absent keep their own
    assert (found[:3, 3:] == 0).all()


def test_a_hostile_client_of_any_length_stays_alone() -> None:
    vectors = came(6, [0, 1] * 4)
    hostile = vectors._replace(matrix=vectors.matrix.at[7].multiply(-1e4))
    _, found = weights(start(8), hostile)
    assert found[:7, 7].max() == 0
    silly = vectors._replace(matrix=vectors.matrix.at[7].set(jnp.nan))
    _, found = weights(start(8), silly)
    assert np.isfinite(found).all()
    assert found[:7, 7].max() == 0


def test_copies_prove_nothing() -> None:
    """Two clients that send one vector have a cosine of 1 in any case."""
    vectors = came(7, list(range(8)))
    same = vectors._replace(matrix=vectors.matrix.at[1].set(vectors.matrix[0]))
    _, found = weights(start(8), same)
    assert (found == np.eye(8)).all()


def test_it_goes_on_from_a_file_bit_for_bit(tmp_path) -> None:
    labels = [0, 0, 1, 1, 1, 2, 2, 2]
    state, _ = weights(start(8), came(8, labels, 0.5))
    save_state(state, tmp_path / "state.safetensors")
    second = came(9, labels, 0.5)
    there = load_state(tmp_path / "state.safetensors")
    (one, found), (other, again) = weights(state, second), weights(there, second)
    assert (found == again).all()
    assert (one.of("weighting")["labels"] == other.of("weighting")["labels"]).all()
    assert np.array_equal(one.personal, other.personal)


def test_what_it_cannot_take_is_refused() -> None:
    (line,) = Aggregator(similarity=InnerProduct(), weighting=Groups()).problems()
    assert line == "aggregator.similarity: Groups cannot take InnerProduct; set it to fedpl.server.Cosine"
    (line,) = Aggregator(weighting=Trimmed(Groups())).problems()
    assert line.startswith("aggregator.weighting.inner: Groups looks at inner products")
    found = Aggregator(weighting=Groups(level=0.5, individual=1.5)).problems()
    assert [line.split(":")[0] for line in found] == [
        "aggregator.weighting.level",
        "aggregator.weighting.individual",
    ]
