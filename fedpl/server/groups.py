"""The weighting that finds out whether there are groups at all, and mixes as much as that is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.server.similarity import Cosine, Similarity
from fedpl.server.weighting import Memory, Weighting

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp

    from fedpl.server import blocks, structure
    from fedpl.server.evidence import Evidence
else:
    jax, jnp = map(deferred, ("jax", "jax.numpy"))
    blocks, structure = map(deferred, ("fedpl.server.blocks", "fedpl.server.structure"))

_COPY = 1 - 1e-6  # cosine of vectors that are one: it says nothing of what two clients have in common


class OfAllRounds(Weighting):
    """A weighting that decides on the host, from inner products over the rounds, and remembers its answer."""

    by_products: ClassVar[bool] = True

    @property
    def on_host(self) -> bool:
        return True

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Cosine,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        raise TypeError(f"{type(self).__name__} remembers its answer over the rounds: call weigh")


@dataclass(frozen=True)
class Groups(OfAllRounds):
    """Everyone alone, one group, or several: a tested answer, and Wiener weights of the cosines it leaves.

    Ours (FedBip-T). Cosines of inner products, averaged over the rounds by `Subject.average`, are tested
    against noise with as many clients; means inside and between the groups that stand the test are the
    clients' signal S, and weights are S (S + N)⁻¹ with what is missing on the diagonal as noise N. Clients
    share inside their group, with other groups as far as these are alike, and keep their own where the
    signal is weak or nobody else has it. Labels are remembered, and changed only by evidence.

    Attributes:
        level: Probability of seeing groups, or a common direction, where there are none.
        individual: Part of the energy that no other client shows which counts as a client's own signal.
    """

    level: float = 0.05
    individual: float = 0.05

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        n = len(evidence.mask)
        gram = np.asarray(evidence.whole_products, np.float64)
        labels = np.array(memory.get("labels", jnp.full(n, -1)))
        known = np.flatnonzero(gram.diagonal() > 0)  # the absent too, as far as their products are remembered
        here = np.flatnonzero(np.asarray(evidence.mask)[known])
        found = np.eye(n)
        if len(here):
            cosine = cosines(gram[np.ix_(known, known)])
            answer = structure.answer(cosine, numbered(labels[known]), self.level)
            labels[known] = known[numbered(answer)]
            if len(np.unique(answer)) < len(answer):
                signal = blocks.signal(cosine, answer, self.individual)[np.ix_(here, here)]
                found[np.ix_(known[here], known[here])] = blocks.weights(signal)
        weights = jnp.asarray(found, jnp.float32)
        return jnp.broadcast_to(weights, evidence.similarity.shape), {"labels": jnp.asarray(labels)}

    def problems(self) -> Sequence[str]:
        found = []
        if not 0 < self.level < 0.5:
            found.append(f"aggregator.weighting.level: must lie in (0, 0.5), got {self.level}")
        if not 0 <= self.individual <= 1:
            found.append(f"aggregator.weighting.individual: must lie in [0, 1], got {self.individual}")
        return found


def cosines(gram: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    """Cosines; of pairs that never met, and of copies, what these clients have with others on average."""
    length = np.sqrt(gram.diagonal())
    cosine = np.clip(gram / np.outer(length, length), -1.0, 1.0)
    told = (gram != 0) & (cosine < _COPY)
    np.fill_diagonal(told, False)
    mean = (cosine * told).sum(1) / np.maximum(told.sum(1), 1)
    cosine = np.where(told, cosine, (mean[:, None] + mean) / 2)
    np.fill_diagonal(cosine, 1.0)
    return cosine


def numbered(labels: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """Labels as the place of the group's first member; −1 stays."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.where(labels < 0, -1, first[inverse])
