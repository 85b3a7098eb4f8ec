"""What is compared, against the same written out in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.records.layout import AdapterLayout
from fedpl.server import (
    Aggregator,
    CentredCosine,
    CorrectedCosine,
    Distance,
    InnerProduct,
    PrincipalAngles,
    Rbf,
    SignAgreement,
    Similarity,
    Subject,
)
from fedpl.server.state import ServerState
from tests.server.conftest import LORA, dense, reference, task_vectors, vectors


def similarity(aggregator: Aggregator, rounds: list[np.ndarray], masks: list | None = None) -> np.ndarray:
    """Similarities of the last of several rounds."""
    state = aggregator.init(jnp.asarray(reference()), len(rounds[0]))
    for i, tau in enumerate(rounds):
        state, found = aggregator.update(state, vectors(tau, masks[i] if masks else None), LORA)
    return np.asarray(found.similarity, np.float64)


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


def columns(*kinds: str) -> np.ndarray:
    return np.concatenate([np.arange(e.start, e.stop) for e in LORA.entries if e.kind in kinds])


@pytest.mark.parametrize(
    ("subject", "kinds"),
    [
        (Subject(), ("lora_A", "lora_B", "head")),
        (Subject(head=False), ("lora_A", "lora_B")),
        (Subject(space="lora_A", head=False), ("lora_A",)),
        (Subject(space="lora_B"), ("lora_B", "head")),
        (Subject(space="head"), ("head",)),
    ],
)
def test_spaces_are_columns(subject: Subject, kinds: tuple[str, ...]) -> None:
    tau = task_vectors(0)
    found = similarity(Aggregator(subject), [tau])[0]
    np.testing.assert_allclose(found, cosines(tau[:, columns(*kinds)]), atol=1e-5)


def test_what_is_not_shared_is_not_compared() -> None:
    tau = task_vectors(0)
    found = similarity(Aggregator(share=("lora_A", "head")), [tau])[0]
    np.testing.assert_allclose(found, cosines(tau[:, columns("lora_A", "head")]), atol=1e-5)


def test_product_space_compares_the_change_of_the_weights_themselves() -> None:
    """After two local rounds, so that the factors before the round differ from client to client."""
    rounds = [task_vectors(0), task_vectors(1)]
    from fedpl.server import Local

    rule = Aggregator(Subject(space="product"), weighting=Local())
    found = similarity(rule, rounds)[0]
    before = reference() + rounds[0]
    changes = []
    for old, new, tau in zip(before, before + rounds[1], rounds[1], strict=True):
        parts = [(b - a).ravel() for a, b in zip(dense(old), dense(new), strict=True)]
        changes.append(np.concatenate([*parts, tau[columns("head")]]))
    np.testing.assert_allclose(found, cosines(np.array(changes)), atol=2e-5)


def test_product_space_does_not_see_the_gauge() -> None:
    """(R B, A R⁻¹) is the same update: factors' cosines change, those of products do not."""
    from fedpl.server import Local

    rng = np.random.default_rng(3)
    start, tau = reference() + task_vectors(1), task_vectors(2)
    turned_start, turned_tau = start.copy(), tau.copy()
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for a, b in LORA.pairs:
        for matrix in (turned_start, turned_tau):
            part_a = matrix[1, a.start : a.stop].reshape(a.shape)
            part_b = matrix[1, b.start : b.stop].reshape(b.shape)
            matrix[1, a.start : a.stop] = (q.T @ part_a).ravel()
            matrix[1, b.start : b.stop] = (part_b @ q).ravel()
    found = {}
    for space in ("product", "factors"):
        rule = Aggregator(Subject(space=space, head=False), weighting=Local())
        for name, personal, update in (("plain", start, tau), ("turned", turned_start, turned_tau)):
            state = ServerState(0, jnp.asarray(personal), jnp.asarray(reference()))
            found[space, name] = np.asarray(rule.update(state, vectors(update), LORA)[1].similarity[0])
    np.testing.assert_allclose(found["product", "plain"], found["product", "turned"], atol=1e-4)
    assert np.abs(found["factors", "plain"] - found["factors", "turned"]).max() > 0.1


def test_cumulative_vectors_are_all_that_happened_since_the_start() -> None:
    from fedpl.server import Local

    rounds = [task_vectors(s) for s in range(3)]
    found = similarity(Aggregator(Subject("cumulative"), weighting=Local()), rounds)[0]
    np.testing.assert_allclose(found, cosines(sum(rounds)), atol=1e-5)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_averaged_vectors_forget_by_the_decay(decay: float) -> None:
    rounds = [task_vectors(s) for s in range(3)]
    found = similarity(Aggregator(Subject("averaged", decay=decay)), rounds)[0]
    total = sum(decay ** (2 - i) * tau.astype(np.float64) for i, tau in enumerate(rounds))
    np.testing.assert_allclose(found, cosines(total), atol=1e-5)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_similarities_are_averaged_over_the_rounds_of_both(decay: float) -> None:
    rounds = [task_vectors(s) for s in range(3)]
    masks = [[True] * 6, [True, False, True, True, True, True], [True] * 6]
    found = similarity(Aggregator(Subject(average="similarity", decay=decay)), rounds, masks)[0]
    total, weight = np.zeros((6, 6)), np.zeros((6, 6))
    for tau, mask in zip(rounds, masks, strict=True):
        pair = np.outer(mask, mask)
        total = np.where(pair, decay * total + cosines(tau), total)
        weight = np.where(pair, decay * weight + 1, weight)
    np.testing.assert_allclose(found, total / weight, atol=1e-5)


def test_products_are_averaged_before_they_become_cosines() -> None:
    rounds = [task_vectors(0), 3 * task_vectors(1)]
    found = similarity(Aggregator(Subject(average="products")), rounds)[0]
    gram = sum(tau.astype(np.float64) @ tau.T.astype(np.float64) for tau in rounds)
    norm = np.sqrt(gram.diagonal())
    np.testing.assert_allclose(found, gram / np.outer(norm, norm), atol=1e-5)


def _by_definition(kind: Similarity, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    match kind:
        case InnerProduct():
            return x @ x.T
        case CentredCosine():
            return cosines(x - x.mean(0))
        case Distance():
            return -squared
        case Rbf():
            width = kind.sigma or np.median(squared[np.triu_indices(len(x), 1)])
            return np.exp(-squared / width)
        case _:
            return cosines(np.sign(x))


@pytest.mark.parametrize(
    "kind", [InnerProduct(), CentredCosine(), Distance(), Rbf(), Rbf(3.0), SignAgreement()], ids=repr
)
def test_similarities_by_definition(kind: Similarity) -> None:
    tau = task_vectors(5)
    found = similarity(Aggregator(similarity=kind), [tau])[0]
    np.testing.assert_allclose(found, _by_definition(kind, tau), rtol=2e-5, atol=2e-5)


def test_principal_angles_by_svd() -> None:
    tau = task_vectors(4)
    found = similarity(Aggregator(Subject(head=False), similarity=PrincipalAngles()), [tau])[0]
    total = np.zeros((6, 6))
    for _, b in LORA.pairs:
        factors = (reference() + tau)[:, b.start : b.stop].reshape(-1, *b.shape).astype(np.float64)
        bases = [np.linalg.qr(f)[0] for f in factors]
        total += [[np.linalg.norm(u.T @ v) ** 2 for v in bases] for u in bases]
    np.testing.assert_allclose(found, total / (3 * len(LORA.pairs)), atol=1e-4)


def test_the_correction_takes_the_noise_out_of_cosines() -> None:
    """Clients of two opposed directions in much noise: corrected cosines are near 1 and −1."""
    wide = AdapterLayout.of({"head.weight": (100, 400)})
    rng = np.random.default_rng(0)
    truth = rng.normal(size=wide.size)
    sign = np.array([1, -1] * 6)
    tau = (sign[:, None] * truth + 2 * rng.normal(size=(12, wide.size))).astype(np.float32)
    plain, corrected = (
        np.asarray(rule.update(rule.init(jnp.zeros(wide.size), 12), vectors(tau), wide)[1].similarity[0])
        for rule in (Aggregator(), Aggregator(similarity=CorrectedCosine(rank=1)))
    )
    off = ~np.eye(12, dtype=bool)
    expected = np.outer(sign, sign)[off]
    assert np.abs(plain[off] - 0.2 * expected).max() < 0.05
    assert np.abs(corrected[off] - expected).max() < 0.15


def test_a_group_without_compared_tensors_takes_the_others_similarity() -> None:
    tau = task_vectors(0)
    found = similarity(Aggregator(Subject(space="lora_B", head=False), granularity="kind"), [tau])
    assert LORA.labels("kind") == ("query", "value", "head")
    np.testing.assert_allclose(found[2], cosines(tau[:, columns("lora_B")]), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_contradictions_are_named() -> None:
    wrong = [
        Subject(decay=0.0),
        Subject("averaged", space="product"),
        Subject(space="head", head=False),
    ]
    assert [len(subject.problems()) for subject in wrong] == [1, 1, 1]
