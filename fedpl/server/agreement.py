"""Who shares a task: agreement of true directions, from cosines and what clients report of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.server.groups import OfAllRounds, cosines, numbered
from fedpl.server.weighting import Memory

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp

    from fedpl.server import blocks, expecting, mixture, reports, structure
    from fedpl.server.evidence import Evidence
    from fedpl.server.expecting import Expected
else:
    jax, jnp = map(deferred, ("jax", "jax.numpy"))
    blocks, expecting, mixture, reports, structure = (
        deferred(f"fedpl.server.{name}")
        for name in ("blocks", "expecting", "mixture", "reports", "structure")
    )

_LEVEL = 0.05  # of the test of the cosines alone


@dataclass(frozen=True)
class Agreement(OfAllRounds):
    """Clients share as far as their true directions are shown to agree, whatever the noise.

    Ours (FedBip-H). A cosine cᵢₖ of two task vectors is small because the tasks differ or because both are
    mostly noise, and the vectors themselves do not tell which. So clients train on two halves of their
    examples too and report the cosine h of the two task vectors: ρ = 2h / (1 + h) of a whole task vector's
    energy is signal then (Spearman and Brown; `reports` draws it towards what all say of as many examples,
    and corrects all by what members of groups agree in), and cᵢₖ / √(ρᵢρₖ) estimates the cosine of the true
    directions: 1 for one task. How agreements are distributed is learnt from the pairs (`mixture`), inside
    the groups that the cosines alone show and between them (`structure`). If the cosines show that clients
    have anything in common at all, they are joined from the most alike on (average linkage) while an
    agreement of `alike` or more is likely, and members of a group get one average. Who was together stays
    while enough agreement is possible, or half of it is shown and the cosines alone show one of several
    groups there. Between groups r² is expected, S = ρ r², and weights are those of W = S (S + N)⁻¹, the
    linear estimate of least error, N being the noise: of a task that is like another one in half, half a
    share of that half. Who shows so little that its cosines say nothing takes what the likeliest group takes
    (`follow`) once all its reports are there, and gives it nothing.

    Attributes:
        alike: Agreement from which clients are averaged.
        sure: Probability that this has to have.
        steady: Standard errors by which less has to be shown until who was together may be parted.
        reports: How often each client reports; a report takes as many steps again as the round's training.
    """

    alike: float = 0.7
    sure: float = 0.5
    steady: float = 3.0
    reports: int = 3

    @property
    def halves(self) -> int:
        return self.reports

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        if evidence.halves is None:
            raise UserError(
                "aggregator.weighting: Agreement looks at what clients report of the halves of their "
                "examples (TaskVectors.halves), and there is nothing; take another weighting"
            )
        n = len(evidence.mask)
        gram = np.asarray(evidence.whole_products, np.float64)
        labels, tested = (np.array(memory.get(name, jnp.full(n, -1))) for name in ("labels", "tested"))
        known = np.flatnonzero(gram.diagonal() > 0)  # the absent too, as far as their products are remembered
        here = np.flatnonzero(np.asarray(evidence.mask)[known])
        found = np.eye(n)
        if len(here):
            cosine = cosines(gram[np.ix_(known, known)])
            groups = structure.answer(cosine, numbered(tested[known]), _LEVEL)
            signal, factor = self._signal(evidence, known, cosine, groups)
            scale = np.sqrt(np.outer(signal, signal))
            expected = expecting.expect(cosine, scale, groups, factor)
            joined = self.join(cosine, scale, expected, numbered(labels[known]))
            own, part = apart(joined, expected.blind), np.ix_(here, here)
            weights = blocks.weights(expecting.shared(cosine, signal, expected, own)[part])
            if int(evidence.round) + 1 < self.reports:  # who shows too little is not known before
                joined = numbered(own)
            else:
                weights, joined[here] = follow(weights, joined[here], own[here], expected.blind[part])
            found[np.ix_(known[here], known[here])] = weights
            labels[known], tested[known] = known[joined], known[numbered(groups)]
        new = {"labels": jnp.asarray(labels), "tested": jnp.asarray(tested)}
        return jnp.broadcast_to(jnp.asarray(found, jnp.float32), evidence.similarity.shape), new

    def _signal(
        self,
        evidence: "Evidence",
        known: Int[np.ndarray, "n"],
        cosine: Float[np.ndarray, "n n"],
        groups: Int[np.ndarray, "n"],
    ) -> tuple[Float[np.ndarray, "n"], float]:
        """ρᵢ of these clients, and what their reports were multiplied by."""
        told = np.asarray(evidence.halves, np.float64)[known], np.asarray(evidence.num_examples)[known]
        error = blocks.blocks(cosine, groups).noise / min(int(evidence.round) + 1, self.reports)
        signal = reports.shares(*told, error)
        factor = reports.correction(cosine, signal, groups)
        return reports.shares(*told, error, factor), factor

    def join(
        self,
        cosine: Float[np.ndarray, "n n"],
        scale: Float[np.ndarray, "n n"],
        expected: "Expected",
        before: Int[np.ndarray, "n"],
    ) -> Int[np.ndarray, "n"]:
        """Who belongs together: the place of the group's first client, for each.

        Args:
            cosine: Of task vectors.
            scale: √(ρᵢρₖ).
            expected: If the cosines alone show nobody in one group, nobody joins anew.
            before: Groups of the round before; −1: none yet.
        """
        n = len(cosine)
        if n < 2:
            return np.arange(n)
        noise, same, blind, chance = expected[:4]
        seen, error = cosine / scale, np.sqrt(noise) / scale
        likely = np.empty_like(seen)
        for value in np.unique(chance):
            which = chance == value
            likely[which] = mixture.mean(expected.mass(value), seen[which], error[which])
        # Who was together and is in one of several groups that the cosines alone show.
        was = (before[:, None] == before) & (before >= 0)
        keeps, held = was & same & (not same.all()), was & blind
        near = (likely + (keeps | held)) * (1.0 - np.eye(n))  # the most alike are joined first
        tree = linkage(3.0 - squareform(near, checks=False), "average")  # distances are positive
        members, labels = [np.array([i]) for i in range(n)], np.arange(n)
        for one, other in tree[:, :2].astype(int):
            both = np.concatenate([members[one], members[other]])
            pairs = np.ix_(members[one], members[other])
            members.append(both)
            entries = np.square(scale[pairs]).sum()
            shown = (scale[pairs] * cosine[pairs]).sum(keepdims=True)[0] / entries
            error = np.sqrt([noise / entries])
            if len(set(before[both])) == 1 and before[both[0]] >= 0:
                half = keeps[pairs].all() and shown >= self.alike / 2
                stays = half or held[pairs].mean() > 0.5
                holds = stays or shown + self.steady * error >= self.alike
            elif same.sum() > n:
                mass = expected.mass(chance[pairs].mean())
                # Reports that were too small may have been so of some: groups that are seen need no more.
                least = self.alike / (max(expected.factor, 1.0) if same[pairs].mean() > 0.5 else 1.0)
                holds = mixture.chance(least, mass, shown, error) >= self.sure
            else:
                holds = False
            # Its parts agree more among themselves: they are joined even if of too few to show it.
            if holds:
                labels[both] = both.min()
        return labels

    def problems(self) -> Sequence[str]:
        checks = (
            (0 < self.alike <= 1, f"alike: must lie in (0, 1], got {self.alike}"),
            (0 < self.sure <= 1, f"sure: must lie in (0, 1], got {self.sure}"),
            (self.steady >= 0, f"steady: must not be negative, got {self.steady}"),
            (self.reports >= 1, f"reports: at least 1, got {self.reports}"),
        )
        return [f"aggregator.weighting.{what}" for holds, what in checks if not holds]


def apart(labels: Int[np.ndarray, "n"], blind: Bool[np.ndarray, "n n"]) -> Int[np.ndarray, "n"]:
    """Groups without those that show too little to most of the others in them, who get labels of their own.

    Args:
        labels: Groups.
        blind: Whose cosine says nothing, see `Expected`.
    """
    n = len(labels)
    others = (labels[:, None] == labels) & ~np.eye(n, dtype=bool)
    out = 2 * (blind & others).sum(1) > others.sum(1)
    out &= (others & ~out).any(1)  # somebody is left
    return np.where(out, n + np.arange(n), labels)


def follow(
    weights: Float[np.ndarray, "n n"],
    labels: Int[np.ndarray, "n"],
    own: Int[np.ndarray, "n"],
    blind: Bool[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, "n n"], Int[np.ndarray, "n"]]:
    """Who shows too little gets what a group gets: that in which it is, or, if less than half of its weights
    are its own, the one that has most of them.

    Args:
        weights: Of the groups in `own`.
        labels: Groups.
        own: The same without those that show too little, from `apart`.
        blind: Whose cosine says nothing, see `Expected`.

    Returns:
        Weights, in which followers have none themselves, and groups with their followers.
    """
    member = own[:, None] == own
    taken = weights @ member  # from the group of k, at each of its members
    found, joined = weights.copy(), labels.copy()
    np.fill_diagonal(taken, 0.0)
    for i in np.flatnonzero(member.sum(1) == 1):
        group = (labels == labels[i]) & (own == labels)
        if own[i] == labels[i] or not group.any():  # in no group whose members are here
            most = member[taken[i].argmax()]
            group = most & (weights[i, i] < 0.5) & (2 * blind[i, most].sum() > most.sum())
        if group.any():
            row = np.where(np.arange(len(own)) == i, 0.0, weights[group].mean(0))
            found[i], joined[i] = row / row.sum(), labels[group][0]
    return found, joined
