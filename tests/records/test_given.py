"""Whose task vectors are in whose aggregate."""

import numpy as np

from fedpl.records.given import given

P = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, -0.5, 1.5]], np.float32)
Q = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.25, 0.0, 0.75]], np.float32)
ALL = [True] * 3


def test_updates_add_up_and_an_absent_client_takes_nothing() -> None:
    found = given([(P, ALL), (Q, [True, False, True])], mixes="updates")
    np.testing.assert_allclose(found, [[1.5, 0.5, 0], [0.5, 0.5, 0], [0.25, 0.5, 2.25]])


def test_models_bring_along_what_they_hold() -> None:
    """By following every task vector: θ̄ = P θ, θ = θ̄ + τ."""
    found = given([(abs(P), ALL), (Q, ALL)], mixes="models")
    first = abs(P)  # of the first round's τ in θ̄ after it
    np.testing.assert_allclose(found, Q @ first + Q)
    assert found[1, 1] == 0.5, "client 1 took over client 2's model, in which its own first update is"


def test_followers_have_what_those_hold_that_they_follow() -> None:
    leads = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 1, 0]], np.float32)
    found = given([(P, ALL), (leads, ALL)], mixes="followers")
    np.testing.assert_allclose(found, [[1, 1, 0], [1, 1, 0], [0.5, 1.5, 0]])
    kept = given([(P, ALL), (leads, [True, True, False])], mixes="followers")
    np.testing.assert_allclose(kept[2], abs(P[2]))


def test_no_rounds() -> None:
    assert given([], mixes="updates").size == 0
