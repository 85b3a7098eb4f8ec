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
from tests import bounds
from tests.server.conftest import COSINE, LORA, dense, reference, task_vectors, vectors


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
    bounds.within(found, cosines(tau[:, columns(*kinds)]), COSINE)


def test_without_heads_whole_adapters_are_compared() -> None:
    layout = AdapterLayout.of({e.name: e.shape for e in LORA.entries if e.kind != "head"}, LORA.scale)
    tau = vectors(task_vectors(0)[:, : layout.size])
    found = []
    for space in ("head", "factors"):
        rule = Aggregator(subject=Subject(space=space))
        _, aggregation = rule.update(rule.init(jnp.asarray(reference()[: layout.size]), 6), tau, layout)
        found.append(np.asarray(aggregation.similarity))
    assert np.abs(found[0][0] - np.eye(6)).max() > 0.1
    np.testing.assert_array_equal(*found)


def test_what_is_not_shared_is_not_compared() -> None:
    tau = task_vectors(0)
    found = similarity(Aggregator(share=("lora_A", "head")), [tau])[0]
    bounds.within(found, cosines(tau[:, columns("lora_A", "head")]), COSINE)


def product_error(before: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """Of products of ΔW = B'(A' − A) + (B' − B) A, from factors of rank 6 whose sizes these are.

    Cells of sums over 10 and 8 numbers, 36 of them, three modules; the aggregate before is rounded itself.
    """
    wide = [np.abs(before) + np.abs(tau)]  # |B'| |A' − A| + |B' − B| |A|, entry by entry
    total = np.zeros((len(tau), len(tau)))
    for a, b in LORA.pairs:
        old_a, old_b, step_a, step_b = (
            np.abs(x[:, e.start : e.stop]).reshape(-1, *e.shape) for x in (wide[0], tau) for e in (a, b)
        )
        sizes = LORA.scale * (old_b @ (step_a + bounds.F32 * old_a) + (step_b + bounds.F32 * old_b) @ old_a)
        rows = sizes.reshape(len(tau), -1)
        rounded = LORA.scale * 2 * bounds.F32 * (old_b @ old_a).reshape(len(tau), -1)
        total += bounds.gamma(10 + 8 + 36 + 3 + 8) * rows @ rows.T + rounded @ rows.T + rows @ rounded.T
    return total


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
    changes = np.array(changes)
    error = product_error(before, rounds[1]) + bounds.gram(14) * np.abs(changes) @ np.abs(changes.T)
    bounds.within(found, cosines(changes), bounds.normalised(changes @ changes.T, error))


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
    changes = [
        np.concatenate([(new - old).ravel() for new, old in zip(dense(b), dense(a), strict=True)])
        for a, b in zip(start, start + tau, strict=True)
    ]
    exact = np.array(changes) @ np.array(changes).T
    allowed = sum(
        bounds.normalised(exact, product_error(*both)) for both in ((start, tau), (turned_start, turned_tau))
    )
    bounds.within(found["product", "plain"], found["product", "turned"], allowed)
    assert np.abs(found["factors", "plain"] - found["factors", "turned"]).max() > 0.1


def cancelled(total: np.ndarray, sizes: np.ndarray) -> float:
    """Of cosines of sums: what θ₀ and the terms are rounded by stays when they cancel."""
    off = bounds.gamma(3 + 1) * np.linalg.norm(sizes + np.abs(reference()), axis=1)
    return COSINE + 2 * float((off / np.linalg.norm(total, axis=1)).max())


def test_cumulative_vectors_are_all_that_happened_since_the_start() -> None:
    from fedpl.server import Local

    rounds = [task_vectors(s) for s in range(3)]
    found = similarity(Aggregator(Subject("cumulative"), weighting=Local()), rounds)[0]
    bounds.within(found, cosines(sum(rounds)), cancelled(np.sum(rounds, 0), sum(map(np.abs, rounds))))


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_averaged_vectors_forget_by_the_decay(decay: float) -> None:
    rounds = [task_vectors(s) for s in range(3)]
    found = similarity(Aggregator(Subject("averaged", decay=decay)), rounds)[0]
    total = sum(decay ** (2 - i) * tau.astype(np.float64) for i, tau in enumerate(rounds))
    bounds.within(found, cosines(total), cancelled(total, sum(map(np.abs, rounds))))


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
    bounds.within(found, total / weight, COSINE + bounds.gamma(2 * 3 + 2))


def test_products_are_averaged_before_they_become_cosines() -> None:
    rounds = [task_vectors(0), 3 * task_vectors(1)]
    found = similarity(Aggregator(Subject(average="products")), rounds)[0]
    gram = sum(tau.astype(np.float64) @ tau.T.astype(np.float64) for tau in rounds)
    norm = np.sqrt(gram.diagonal())
    bounds.within(found, gram / np.outer(norm, norm), bounds.cosine(LORA.size + 2))


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


def _off_by(kind: Similarity, x: np.ndarray) -> np.ndarray | float:
    """Products and distances by the rows' norms; what is derived from them by its slope."""
    size = np.square(x.astype(np.float64)).sum(1)
    norms, squares = np.sqrt(np.outer(size, size)), np.add.outer(size, size)
    product, distance = bounds.gram(LORA.size) * norms, 2 * bounds.gram(LORA.size + 4) * squares
    match kind:
        case InnerProduct():
            return product
        case CentredCosine():  # four sums of products, whose sizes the centred ones no longer have
            centred = x - x.mean(0, dtype=np.float64)
            exact = centred @ centred.T
            return bounds.normalised(
                exact, 4 * bounds.gram(LORA.size + 2 * len(x)) * np.full_like(norms, size.max())
            )
        case Distance():
            return distance
        case Rbf():
            squared = -_by_definition(Distance(), x)
            width = kind.sigma or np.median(squared[np.triu_indices(len(x), 1)])
            return 2 * distance.max() / width + bounds.gamma(8)
        case _:
            return COSINE


@pytest.mark.parametrize(
    "kind", [InnerProduct(), CentredCosine(), Distance(), Rbf(), Rbf(3.0), SignAgreement()], ids=repr
)
def test_similarities_by_definition(kind: Similarity) -> None:
    tau = task_vectors(5)
    found = similarity(Aggregator(similarity=kind), [tau])[0]
    bounds.within(found, _by_definition(kind, tau), _off_by(kind, tau))


def test_principal_angles_by_svd() -> None:
    tau = task_vectors(4)
    found = similarity(Aggregator(Subject(head=False), similarity=PrincipalAngles()), [tau])[0]
    total = np.zeros((6, 6))
    for _, b in LORA.pairs:
        factors = (reference() + tau)[:, b.start : b.stop].reshape(-1, *b.shape).astype(np.float64)
        bases = [np.linalg.qr(f)[0] for f in factors]
        total += [[np.linalg.norm(u.T @ v) ** 2 for v in bases] for u in bases]
    # Orthonormal bases that QR leaves off by a rounding of every row and column, once for each side.
    bounds.within(found, total / (3 * len(LORA.pairs)), 2 * 2 * bounds.gamma(3 * (8 + 3) + 3 * 8))


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
    bounds.within(found[2], cosines(tau[:, columns("lora_B")]), COSINE)
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_contradictions_are_named() -> None:
    wrong = [
        Subject(decay=0.0),
        Subject("averaged", space="product"),
        Subject(space="head", head=False),
    ]
    assert [len(subject.problems()) for subject in wrong] == [1, 1, 1]
