"""Who shares a task: agreement of true directions, from cosines and what clients report of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.server.groups import OfAllRounds, cosines, numbered
from fedpl.server.reports import shares
from fedpl.server.weighting import Memory

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp

    from fedpl.server import blocks, mixture, structure
    from fedpl.server.evidence import Evidence
else:
    jax, jnp = map(deferred, ("jax", "jax.numpy"))
    blocks, mixture, structure = (
        deferred(f"fedpl.server.{name}") for name in ("blocks", "mixture", "structure")
    )

_LEVEL = 0.05  # of the test of the cosines alone


class Expected(NamedTuple):
    """What is known of pairs of clients before they are looked at one by one.

    Attributes:
        noise: Variance of a cosine's noise.
        same: Who is in one group by the cosines alone.
        inside: How agreements of these are distributed, see `mixture.learnt`.
        between: The same of all other pairs.
    """

    noise: float
    same: Bool[np.ndarray, "n n"]
    inside: Float[np.ndarray, "agreements"]
    between: Float[np.ndarray, "agreements"]


@dataclass(frozen=True)
class Agreement(OfAllRounds):
    """Clients share as far as their true directions are shown to agree, whatever the noise.

    Ours (FedBip-H). A cosine cᵢₖ of two task vectors is small because the tasks differ or because both are
    mostly noise, and the vectors themselves do not tell which. So clients train on two halves of their
    examples too and report the cosine h of the two task vectors: ρ = 2h / (1 + h) of a whole task vector's
    energy is signal then (Spearman and Brown; `reports` draws it towards what all say of as many examples),
    and cᵢₖ / √(ρᵢρₖ) estimates the cosine of the true directions: 1 for one task. How agreements are
    distributed is learnt from the pairs (`mixture`), inside the groups that the cosines alone show and
    between them (`structure`). If the cosines show that clients have anything in common at all, they are
    joined from the most alike on (average linkage) while an agreement of `alike` or more is likely, and
    members of a group get one average. Who was together stays while enough agreement is possible, or half
    of it is shown and the cosines alone show one of several groups there. Between groups r² is expected,
    S = ρ r², and weights are those of W = S (S + N)⁻¹, the linear estimate of least error, N being the
    noise: of a task that is like another one in half, half a share of that half.

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
            reports = min(int(evidence.round) + 1, self.reports)
            error = blocks.blocks(cosine, groups).noise / reports
            signal = shares(
                np.asarray(evidence.halves, np.float64)[known],
                np.asarray(evidence.num_examples)[known],
                error,
            )
            scale = np.sqrt(np.outer(signal, signal))
            expected = expect(cosine, scale, groups)
            joined = self.join(cosine, scale, expected, numbered(labels[known]))
            weights = blocks.weights(shared(cosine, signal, expected, joined)[np.ix_(here, here)])
            found[np.ix_(known[here], known[here])] = weights
            labels[known], tested[known] = known[joined], known[numbered(groups)]
        new = {"labels": jnp.asarray(labels), "tested": jnp.asarray(tested)}
        return jnp.broadcast_to(jnp.asarray(found, jnp.float32), evidence.similarity.shape), new

    def join(
        self,
        cosine: Float[np.ndarray, "n n"],
        scale: Float[np.ndarray, "n n"],
        expected: Expected,
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
        noise, same, inside, between = expected
        seen, error = cosine / scale, np.sqrt(noise) / scale
        likely = np.empty_like(seen)
        for mass, which in ((inside, same), (between, ~same)):
            likely[which] = mixture.mean(mass, seen[which], error[which])
        # Who was together and is in one of several groups that the cosines alone show.
        keeps = (before[:, None] == before) & (before >= 0) & same & (not same.all())
        near = (likely + keeps) * (1.0 - np.eye(n))  # the most alike are joined first
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
                holds = half or shown + self.steady * error >= self.alike
            elif same.sum() > n:
                part = same[pairs].mean()
                mass = part * inside + (1 - part) * between
                holds = mixture.chance(self.alike, mass, shown, error) >= self.sure
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


def expect(
    cosine: Float[np.ndarray, "n n"], scale: Float[np.ndarray, "n n"], groups: Int[np.ndarray, "n"]
) -> Expected:
    """What pairs show of one another.

    Args:
        cosine: Of task vectors.
        scale: √(ρᵢρₖ).
        groups: Those that the cosines alone show.
    """
    noise = blocks.blocks(cosine, groups, scale).noise
    same = groups[:, None] == groups
    masses = (mixture.learnt(cosine / scale, np.sqrt(noise) / scale, which) for which in (same, ~same))
    return Expected(noise, same, *masses)


def shared(
    cosine: Float[np.ndarray, "n n"],
    signal: Float[np.ndarray, "n"],
    expected: Expected,
    labels: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "n n"]:
    """What true directions share, as parts of the energy of task vectors.

    Args:
        cosine: Of task vectors.
        signal: ρᵢ.
        expected: From all pairs.
        labels: Who belongs together.
    """
    scale = np.sqrt(np.outer(signal, signal))
    group, agreement, entries, _, _ = blocks.blocks(cosine, labels, scale)
    member = np.eye(len(agreement))[group]
    mean = member / member.sum(0)
    energy = member @ (mean.T @ signal)  # members of a group get one average
    error = np.sqrt(expected.noise / np.where(entries > 0, entries, 1.0))
    part = mean.T @ expected.same @ mean  # of the pairs of two groups
    inside, between = (mixture.energy(mass, agreement, error) for mass in expected[2:])
    energies = (part * inside + (1 - part) * between)[np.ix_(group, group)]
    return np.sqrt(np.outer(energy, energy)) * np.where(group[:, None] == group, 1.0, energies)
