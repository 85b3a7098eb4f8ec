"""Whose task vectors are in whose aggregate, over all rounds of a run."""

from collections.abc import Iterable, Sequence

import numpy as np

from fedpl.records.following import starts
from fedpl.records.plain import Matrix


def given(
    rounds: Iterable[tuple[Matrix, Sequence[bool]]], mixes: str, before: Matrix | None = None
) -> Matrix:
    """How many task vectors of client k, in whole or in part, client i's aggregate θ̄ᵢ holds.

    Where clients receive updates, θ̄ᵢ is θ₀ + Σₜ Σₖ pᵢₖ τₖ: the sums over the rounds of |pᵢₖ|. Where models
    are mixed, what another model holds comes with it: Cₜ = |Pₜ| (Cₜ₋₁ + 1); where clients without a weight of
    their own go on from others' aggregates, what those hold: Cₜ = Mₜ Cₜ₋₁ + |Pₜ|, with M of `starts`. Zero
    says that nothing of k was ever added to θ̄ᵢ; what others learned from k before they trained is not
    counted, nor can it be.

    Args:
        rounds: pᵢₖ of each round, averaged over blocks, and whose aggregate was renewed in it.
        mixes: updates, followers or models, see `fedpl.server.FactorWise`.
        before: The same of what the clients began with, where that is not θ₀: clients of the run first, then
            others who sent something before.
    """
    total = before
    for weights, renewed in rounds:
        share, moved = np.abs(weights), np.asarray(renewed)
        total = np.zeros_like(share) if total is None else total
        if more := len(total) - len(share):  # who is no more in the run takes nothing and sends nothing
            share, moved = np.pad(share, (0, more)), np.pad(moved, (0, more))
        after = total + share
        if mixes != "updates":
            after = (share if mixes == "models" else starts(share)) @ total + share
        total = np.where(moved[:, None], after, total)
    return np.zeros((0, 0), np.float32) if total is None else total
