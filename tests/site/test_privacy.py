"""Clipping, noise and what they guarantee."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import run_rounds
from fedpl.site.privacy import epsilon, privatise


@pytest.mark.parametrize(
    ("noise_multiplier", "releases", "delta", "expected"),
    # dp-accounting 0.6.0: PLDAccountant, value_discretization_interval 1e-4, GaussianDpEvent(z / 2), an upper
    # bound.
    [
        (1.0, 1, 1e-5, 9.99725615024243),
        (1.0, 5, 1e-5, 28.373473804682842),
        (4.0, 20, 1e-5, 11.480022811714345),
        (20.0, 10, 1e-6, 1.367571490202779),
        (0.5, 2, 1e-5, 39.38281487840763),
        (8.0, 1, 1e-3, 0.5920067218930314),
    ],
)
def test_epsilon_is_what_an_independent_accountant_says(
    noise_multiplier: float, releases: int, delta: float, expected: float
) -> None:
    found = epsilon(PrivacyConfig(1.0, noise_multiplier, delta), releases)
    assert found == pytest.approx(expected, rel=1e-7)


def test_no_release_costs_nothing_and_much_noise_next_to_nothing() -> None:
    assert epsilon(PrivacyConfig(1.0), 0) == 0
    assert epsilon(PrivacyConfig(1.0, noise_multiplier=1e8, delta=1e-5), 1) == 0


@given(st.floats(0.1, 100), st.integers(1, 1000), st.floats(1e-9, 0.1))
def test_epsilon_grows_with_releases_and_falls_with_noise(noise: float, releases: int, delta: float) -> None:
    found = epsilon(PrivacyConfig(1.0, noise, delta), releases)
    assert 0 <= found < math.inf
    assert epsilon(PrivacyConfig(1.0, noise, delta), releases + 1) >= found
    assert epsilon(PrivacyConfig(1.0, 2 * noise, delta), releases) <= found


def sealed(vector: torch.Tensor, privacy: PrivacyConfig, round: int = 1, client: str = "a") -> torch.Tensor:
    vector = vector.clone()
    privatise(vector, privacy, 0, round, client)
    return vector


def test_without_a_clip_nothing_happens() -> None:
    vector = torch.randn(10)
    assert sealed(vector, PrivacyConfig()).equal(vector)


def test_long_vectors_are_clipped_and_short_ones_are_not() -> None:
    quiet = PrivacyConfig(clip=2.0, noise_multiplier=1e-12)
    long, short = torch.full((100,), 3.0), torch.full((100,), 0.1)
    assert sealed(long, quiet).norm().item() == pytest.approx(2.0, rel=1e-5)
    assert torch.allclose(sealed(short, quiet), short)
    assert sealed(1e30 * long, quiet).norm().item() == pytest.approx(2.0, rel=1e-5), "no overflow"


def test_the_noise_is_gaussian_of_the_stated_size_whatever_the_vector() -> None:
    privacy = PrivacyConfig(clip=2.0, noise_multiplier=1.5)
    one = sealed(torch.zeros(100_000), privacy)
    assert one.std().item() == pytest.approx(3.0, rel=0.02)
    assert one.mean().item() == pytest.approx(0.0, abs=0.05)
    quantiles = torch.quantile(one / 3, torch.tensor([0.1587, 0.5, 0.8413]))
    assert torch.allclose(quantiles, torch.tensor([-1.0, 0.0, 1.0]), atol=0.02)
    vector = torch.linspace(-1, 1, 100_000) / 1000
    assert torch.allclose(sealed(vector, privacy) - one, vector, atol=1e-5)


def test_every_client_and_round_has_noise_of_its_own() -> None:
    privacy = PrivacyConfig(clip=1.0)
    drawn = [sealed(torch.zeros(1000), privacy, round, client) for round in (1, 2) for client in ("a", "b")]
    for i in range(4):
        for j in range(i):
            assert abs(torch.corrcoef(torch.stack([drawn[i], drawn[j]]))[0, 1]) < 0.15
    assert sealed(torch.zeros(1000), privacy).equal(drawn[0])


def test_the_server_compares_what_was_noised(toy: Callable[..., Federation]) -> None:
    privacy = PrivacyConfig(clip=0.5, noise_multiplier=0.1)
    plain, private = (next(run_rounds(toy(privacy=p), 2)) for p in (PrivacyConfig(), privacy))
    expected = plain.vectors.clone()
    for row, report in enumerate(plain.reports):
        privatise(expected[row], privacy, 0, 1, report.client)
    assert private.vectors.equal(expected)
    unit = expected.double() / expected.double().norm(dim=1, keepdim=True)
    np.testing.assert_allclose(private.similarity[0], (unit @ unit.T).numpy(), atol=1e-5)


def test_only_what_was_sent_costs_privacy(toy: Callable[..., Federation]) -> None:
    """Absent and lost clients send nothing; a late answer has left its client."""
    run = toy(
        privacy=PrivacyConfig(clip=1.0),
        participation=ParticipationConfig(fraction=0.6),
        faults=FaultsConfig(lost=0.2, late=0.2),
        seed=4,
    )
    sent = dict.fromkeys(run.clients, 0)
    for result in run_rounds(run, 6):
        late = [client for client, reason in result.rejected.items() if reason == "answered late"]
        for client in [report.client for report in result.reports] + late:
            sent[client] += 1
        assert result.ledger.sent.tolist() == list(sent.values())
    assert 0 < min(sent.values()) < max(sent.values()) < 6


@pytest.mark.parametrize("noise", [1e-12, 1e-6, 1e-3])
def test_epsilon_of_next_to_no_noise_is_a_number(noise: float) -> None:
    """μ²/2 within the slack of concentrated differential privacy; it overflowed."""
    privacy = PrivacyConfig(clip=1.0, noise_multiplier=noise)
    mu = 2 * math.sqrt(5) / noise
    found = epsilon(privacy, 5)
    assert math.isfinite(found)
    assert mu**2 / 2 - 10 * mu < found < mu**2 / 2 + 10 * mu
