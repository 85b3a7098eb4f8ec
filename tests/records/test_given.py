"""Whose task vectors are in whose aggregate."""

import numpy as np

from fedpl.records.given import given

P = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, -0.5, 1.5]], np.float32)
Q = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.25, 0.0, 0.75]], np.float32)
ALL = [True] * 3


def test_updates_add_up_and_an_absent_client_takes_nothing() -> None:
    found = given([(P, ALL), (Q, [True, False, True])], models=False)
    np.testing.assert_allclose(found, [[1.5, 0.5, 0], [0.5, 0.5, 0], [0.25, 0.5, 2.25]])


def test_models_bring_along_what_they_hold() -> None:
    """By following every task vector: θ̄ = P θ, θ = θ̄ + τ."""
    found = given([(abs(P), ALL), (Q, ALL)], models=True)
    first = abs(P)  # of the first round's τ in θ̄ after it
    np.testing.assert_allclose(found, Q @ first + Q)
    assert found[1, 1] == 0.5, "client 1 took over client 2's model, in which its own first update is"


def test_no_rounds() -> None:
    assert given([], models=False).size == 0
