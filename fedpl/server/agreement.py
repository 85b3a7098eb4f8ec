"""Who shares a task: agreement of true directions, from cosines and what clients report of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int
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


class Answer(NamedTuple):
    """Who belongs together.

    Attributes:
        labels: The place of the group's first client, for each.
        noise: Variance of a cosine's noise.
        inside: How agreements are distributed in groups that the cosines alone show, see `mixture.learnt`.
        between: The same of all other pairs.
        part: Of every two groups (`labels`) in order, the part of their pairs that is inside.
    """

    labels: Int[np.ndarray, "n"]
    noise: float
    inside: Float[np.ndarray, "agreements"]
    between: Float[np.ndarray, "agreements"]
    part: Float[np.ndarray, "groups groups"]


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
    members of a group get one average. Who was together stays while the cosines alone show it in one of
    several groups, or enough agreement is possible. Between groups r² is expected, S = ρ r², and weights
    are those of W = S (S + N)⁻¹, the linear estimate of least error, N being the noise: of a task that is
    like another one in half, half a share of that half.

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
            answer = self.answer(cosine, signal, groups, numbered(labels[known]))
            weights = blocks.weights(shared(cosine, signal, answer)[np.ix_(here, here)])
            found[np.ix_(known[here], known[here])] = weights
            labels[known], tested[known] = known[answer.labels], known[numbered(groups)]
        new = {"labels": jnp.asarray(labels), "tested": jnp.asarray(tested)}
        return jnp.broadcast_to(jnp.asarray(found, jnp.float32), evidence.similarity.shape), new

    def answer(
        self,
        cosine: Float[np.ndarray, "n n"],
        signal: Float[np.ndarray, "n"],
        groups: Int[np.ndarray, "n"],
        before: Int[np.ndarray, "n"],
    ) -> "Answer":
        """Who belongs together, and what that was found by.

        Args:
            cosine: Of task vectors.
            signal: ρᵢ.
            groups: Those that the cosines alone show: how large noise is, whether anybody joins, and what to
                expect of whom.
            before: Groups of the round before; −1: none yet.
        """
        scale = np.sqrt(np.outer(signal, signal))
        noise = blocks.blocks(cosine, groups, scale).noise
        seen, error = cosine / scale, np.sqrt(noise) / scale
        same = groups[:, None] == groups
        inside, between = (mixture.learnt(seen, error, which) for which in (same, ~same))
        likely = np.where(same, *(mixture.mean(mass, seen, error) for mass in (inside, between)))
        alone = len(np.unique(groups)) == len(groups)
        found = Answer(np.arange(len(cosine)), noise, inside, between, same)
        labels = self.join(cosine, scale, likely, found, before, not alone)
        member = np.eye(len(np.unique(labels)))[np.unique(labels, return_inverse=True)[1]]
        size = member.sum(0)
        return found._replace(labels=labels, part=member.T @ same @ member / np.outer(size, size))

    def join(
        self,
        cosine: Float[np.ndarray, "n n"],
        scale: Float[np.ndarray, "n n"],
        likely: Float[np.ndarray, "n n"],
        expected: "Answer",
        before: Int[np.ndarray, "n"],
        anew: bool,
    ) -> Int[np.ndarray, "n"]:
        """Who belongs together: the place of the group's first client, for each.

        Args:
            cosine: Of task vectors.
            scale: √(ρᵢρₖ).
            likely: Expected agreement of every two clients: the most alike are joined first.
            expected: What is known of single clients.
            before: Groups of the round before; −1: none yet.
            anew: Whether anybody joins who was not together before.
        """
        n = len(cosine)
        if n < 2:
            return np.arange(n)
        # Who was together and is in one of several groups that the cosines alone show.
        keeps = (before[:, None] == before) & (before >= 0) & (expected.part == 1) & (not expected.part.all())
        near = (likely + keeps) * (1.0 - np.eye(n))
        tree = linkage(3.0 - squareform(near, checks=False), "average")  # distances are positive
        members, labels = [np.array([i]) for i in range(n)], np.arange(n)
        for one, other in tree[:, :2].astype(int):
            left, right = members[one], members[other]
            both = np.concatenate([left, right])
            members.append(both)
            between = scale[np.ix_(left, right)]
            entries = np.square(between).sum()
            shown = (between * cosine[np.ix_(left, right)]).sum(keepdims=True)[0] / entries
            error = np.sqrt([expected.noise / entries])
            if len(set(before[both])) == 1 and before[both[0]] >= 0:
                holds = keeps[np.ix_(left, right)].all() or shown + self.steady * error >= self.alike
            elif anew:
                part = expected.part[np.ix_(left, right)].mean()
                mass = part * expected.inside + (1 - part) * expected.between
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


def shared(
    cosine: Float[np.ndarray, "n n"], signal: Float[np.ndarray, "n"], answer: Answer
) -> Float[np.ndarray, "n n"]:
    """What true directions share, as parts of the energy of task vectors.

    Args:
        cosine: Of task vectors.
        signal: ρᵢ.
        answer: Who belongs together.
    """
    scale = np.sqrt(np.outer(signal, signal))
    group, agreement, entries, _, _ = blocks.blocks(cosine, answer.labels, scale)
    member = np.eye(len(agreement))[group]
    energy = member @ (member.T @ signal / member.sum(0))  # members of a group get one average
    error = np.sqrt(answer.noise / np.where(entries > 0, entries, 1.0))
    inside, between = (mixture.energy(mass, agreement, error) for mass in (answer.inside, answer.between))
    energies = (answer.part * inside + (1 - answer.part) * between)[np.ix_(group, group)]
    return np.sqrt(np.outer(energy, energy)) * np.where(group[:, None] == group, 1.0, energies)
