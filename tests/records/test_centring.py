"""Heads without what all classes share and frequencies move: NumPy, JAX and torch alike, against float64."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from fedpl.records.centring import Head, head_of
from fedpl.records.layout import AdapterLayout
from tests import bounds

CLASSES, FEATURES, N = 6, 40, 5
LAYOUT = AdapterLayout.of(
    {
        "encoder.layer.0.query.lora_A.weight": (2, 7),
        "encoder.layer.0.query.lora_B.weight": (5, 2),
        "head.weight": (CLASSES, FEATURES),
        "head.bias": (CLASSES,),
    }
)
LIBRARIES: dict[str, Callable[[np.ndarray], Any]] = {
    "numpy": np.asarray,
    "jax": jnp.asarray,
    "torch": torch.tensor,
}


def head(layout: AdapterLayout = LAYOUT) -> Head:
    found = head_of(layout)
    assert found is not None
    return found


def made(mean: np.ndarray, frequent: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Task vectors whose head moves by b h̄ᵀ + own."""
    found = np.ones((len(own), LAYOUT.size), np.float32)
    weight = frequent[:, :, None] * mean + own
    found[:, head().weight.start : head().weight.stop] = weight.reshape(len(own), -1)
    found[:, head().bias.start : head().bias.stop] = frequent
    return found


def expected(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The definition, client by client, in float64."""
    weights, biases = [], []
    for row in vectors.astype(np.float64):
        w = row[head().weight.start : head().weight.stop].reshape(CLASSES, FEATURES)
        b = row[head().bias.start : head().bias.stop]
        w, b = w - w.mean(0), b - b.mean()
        mean = np.linalg.lstsq(b[:, None], w, rcond=None)[0][0]
        explained = 1 - np.square(w - np.outer(b, mean)).sum() / np.square(w).sum()
        adjusted = max(1 - (1 - explained) * (CLASSES - 1) / (CLASSES - 2), 0)
        weights.append(w - adjusted / explained * np.outer(b, mean))
        biases.append((1 - adjusted / explained) * b)
    return np.stack(weights).reshape(len(vectors), -1), np.stack(biases)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.ravel(), other.ravel()
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stream = np.random.default_rng(0)
    mean = stream.normal(size=FEATURES)
    frequent = stream.normal(size=(N, CLASSES))
    return mean, frequent - frequent.mean(1, keepdims=True), stream.normal(size=(N, CLASSES, FEATURES))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("skew", [0.1, 1.0, 10.0])
def test_it_is_its_definition(library: str, skew: float, drawn: tuple[np.ndarray, ...]) -> None:
    mean, frequent, own = drawn
    vectors = made(mean, skew * frequent, own)
    # Sums over the whole head, of which the share that is explained is a quotient, and at least a tenth.
    error = 4 * 10 * bounds.gamma(CLASSES * FEATURES) * np.abs(vectors).max()
    for found, right in zip(head().centred(LIBRARIES[library](vectors)), expected(vectors), strict=True):
        bounds.within(np.asarray(found), right, error)


def test_what_classes_mean_is_left_however_frequent_they_are(drawn: tuple[np.ndarray, ...]) -> None:
    mean, frequent, own = drawn
    same = np.broadcast_to(own[0], own.shape)
    vectors = made(mean, 5 * frequent, same)
    whole, (centred, _) = vectors[:, head().weight.start : head().weight.stop], head().centred(vectors)
    assert max(cosine(whole[0], other) for other in whole[1:]) < 0.55
    assert min(cosine(centred[0], other) for other in centred[1:]) > 0.65
    other = made(mean, 5 * frequent, own)  # and whose classes mean something else are no more alike
    assert max(cosine(head().centred(other)[0][0], row) for row in head().centred(other)[0][1:]) < 0.2


def test_what_frequencies_do_not_explain_stays(drawn: tuple[np.ndarray, ...]) -> None:
    """In coincidences nothing is seen: the head as it is."""
    mean, frequent, own = drawn
    own, b = own - own.mean(1, keepdims=True), frequent[:, :, None]
    apart = own - b * (b * own).sum(1, keepdims=True) / np.square(b).sum(1, keepdims=True)
    vectors = made(0 * mean, frequent, apart)
    error = 4 * bounds.gamma(CLASSES) * np.abs(vectors).max()  # of a mean that is taken out, and is zero
    for entry, part in zip(head(), head().centred(vectors), strict=True):
        bounds.within(part, vectors[:, entry.start : entry.stop], error)


def test_what_is_added_to_all_classes_is_nothing(drawn: tuple[np.ndarray, ...]) -> None:
    mean, frequent, own = drawn
    vectors = made(mean, frequent, own)
    more = made(mean, frequent + 2.0, own - 2.0 * mean + 3.0 * mean[::-1])  # W + b h̄ᵀ: no other rows differ
    error = 4 * 10 * bounds.gamma(CLASSES * FEATURES) * np.abs(more).max()
    for found, right in zip(head().centred(more), head().centred(vectors), strict=True):
        bounds.within(found, right, error)


def test_classes_without_examples_make_nobody_alike() -> None:
    """Adam on five examples of ten classes, whose labels mean nothing: absent classes go down together."""
    classes, clients, stream = 10, 24, np.random.default_rng(3)
    common, rows = stream.normal(size=FEATURES), []
    for _ in range(clients):
        layer = torch.nn.Linear(FEATURES, classes)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        adam = torch.optim.Adam(layer.parameters(), lr=0.01)
        features = torch.tensor(common + stream.normal(size=(5, FEATURES)), dtype=torch.float32)
        labels = torch.tensor(stream.integers(0, classes, 5))
        for _ in range(2):
            adam.zero_grad()
            torch.nn.functional.cross_entropy(layer(features), labels).backward()
            adam.step()
        rows.append(torch.cat([layer.weight.flatten(), layer.bias]).detach().numpy())
    plain = np.stack(rows)
    layout = AdapterLayout.of({"head.weight": (classes, FEATURES), "head.bias": (classes,)})
    pairs = [(i, k) for i in range(clients) for k in range(i)]

    def agreement(heads: np.ndarray) -> float:
        return float(np.mean([cosine(heads[i], heads[k]) for i, k in pairs]))

    assert agreement(plain) > 0.05
    # Independent pairs of 400 numbers would have a mean of 0 ± 0.003.
    assert abs(agreement(np.concatenate(head(layout).centred(plain), 1))) < 0.015


def test_who_did_not_move_is_nothing() -> None:
    for found in head().centred(np.zeros((2, LAYOUT.size), np.float32)):
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
    "shapes",
    [
        {"head.weight": (2, 6), "head.bias": (2,)},
        {"head.weight": (1, 6), "head.bias": (1,)},
        {"head.weight": (4, 6)},
        {"layer.0.lora_A.weight": (2, 3), "layer.0.lora_B.weight": (3, 2)},
    ],
)
def test_what_cannot_be_centred(shapes: dict[str, tuple[int, ...]]) -> None:
    assert head_of(AdapterLayout.of(shapes)) is None


def test_the_order_of_weight_and_bias_is_the_models(drawn: tuple[np.ndarray, ...]) -> None:
    vectors = made(*drawn)
    first = AdapterLayout.of({"head.bias": (CLASSES,), "head.weight": (CLASSES, FEATURES)})
    swapped = np.concatenate([head().centred(vectors)[1], head().centred(vectors)[0]], 1)
    bias, weight = (slice(e.start, e.stop) for e in (head().bias, head().weight))
    found = head(first).centred(np.concatenate([vectors[:, bias], vectors[:, weight]], 1))
    np.testing.assert_array_equal(np.concatenate(found[::-1], 1), swapped)
