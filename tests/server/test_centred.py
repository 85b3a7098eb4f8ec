"""Heads compared without what class frequencies move: in memory, on disk and by shards, against float64."""

from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.mapped import scratch
from fedpl.problems import check
from fedpl.records.centring import head_of
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import Halves
from fedpl.server import Aggregator, FedBip, Subject
from fedpl.server.cutting import least_budget
from fedpl.server.panels import step_in_panels
from tests import bounds
from tests.server.conftest import SHAPES, vectors

LAYOUT = AdapterLayout.of(SHAPES | {"head.weight": (4, 9), "head.bias": (4,)}, scale=2.0)
N = 5
STREAM = np.random.default_rng(0)
TAU = STREAM.normal(size=(N, LAYOUT.size)).astype(np.float32)
(HEAD,) = [e for e in LAYOUT.entries if e.name == "head.weight"]
(BIAS,) = [e for e in LAYOUT.entries if e.name == "head.bias"]
FREQUENT = 3 * STREAM.normal(size=(N, 4)).astype(np.float32)
TAU[:, BIAS.start : BIAS.stop] = FREQUENT
TAU[:, HEAD.start : HEAD.stop] += (
    (FREQUENT[:, :, None] * STREAM.normal(size=9)).reshape(N, -1).astype(np.float32)
)
RULES = {
    "head": Aggregator(Subject(space="head", centred=True), weighting=FedBip(negatives="clip")),
    "factors": Aggregator(Subject(centred=True)),
    "products": Aggregator(Subject(space="product", centred=True)),
    "block": Aggregator(Subject(centred=True), granularity="block"),
    "head by block": Aggregator(Subject(space="head", centred=True), granularity="block"),
}


def centred() -> np.ndarray:
    """Task vectors with a centred head, float64."""
    found, head = TAU.astype(np.float64), head_of(LAYOUT)
    assert head is not None
    for entry, part in zip(head, head.centred(found), strict=True):
        found[:, entry.start : entry.stop] = part
    return found


def similarity(rule: Aggregator, tau: np.ndarray, mask: list[bool] | None = None) -> np.ndarray:
    state = rule.init(jnp.zeros(LAYOUT.size), N)
    return np.asarray(rule.update(state, vectors(tau, mask), LAYOUT)[1].similarity, np.float64)


@pytest.mark.parametrize("name", RULES)
def test_what_is_compared_is_the_centred_head(name: str) -> None:
    rule = RULES[name]
    plain = replace(rule, subject=replace(rule.subject, centred=False))
    error = 40 * bounds.cosine(LAYOUT.size)  # the centred head's own, see tests/records/test_centring.py
    bounds.within(similarity(rule, TAU), similarity(plain, centred().astype(np.float32)), error)
    assert np.abs(similarity(rule, TAU) - similarity(plain, TAU)).max() > 0.04


@pytest.mark.parametrize("size", [4 * N * 7, 4 * N * 60])
@pytest.mark.parametrize("name", RULES)
def test_on_disk_it_is_the_same(name: str, size: int, tmp_path: Path) -> None:
    """The head is not cut, however few columns fit."""
    rule, mask = RULES[name], [True, True, False, True, True]
    came = vectors(TAU, mask)
    into = scratch(tmp_path, (N, LAYOUT.size))
    there = rule.update(rule.init(jnp.zeros(LAYOUT.size), N), came, LAYOUT)
    here = step_in_panels(rule, rule.init(jnp.zeros(LAYOUT.size), N, into), came, LAYOUT, size)
    bounds.within(
        np.asarray(here[1].similarity), np.asarray(there[1].similarity), 2 * bounds.cosine(LAYOUT.size)
    )
    assert least_budget(RULES["head"], LAYOUT, N) >= 4 * 4 * N * (HEAD.size + BIAS.size) / 2
    assert least_budget(RULES["head"], LAYOUT, N) > least_budget(Aggregator(), LAYOUT, N)


def test_heads_that_cannot_be_centred_are_compared_as_they_are() -> None:
    two = AdapterLayout.of(SHAPES)
    rule = RULES["factors"]
    assert rule.halves(LAYOUT) == Halves(((0, LAYOUT.size),), True)
    assert rule.halves(two) == Halves(((0, two.size),), False)
    assert rule.subject.of(two) == replace(rule.subject, centred=False)
    none = AdapterLayout.of({k: v for k, v in SHAPES.items() if "lora" in k})
    assert RULES["head"].subject.of(none) == Subject(space="factors", centred=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregator.subject.head": False}, "subject.centred: must be false without head"),
        (
            {"aggregator.similarity": "fedpl.server.SignAgreement"},
            "SignAgreement does not go by inner products",
        ),
        ({"aggregator.granularity": "tensor"}, "granularity must not be tensor"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(with_changes(Config(), {"aggregator.subject.centred": True, **changes}))
