"""Weightings for servers that some of their clients try to mislead."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.server.similarity import Distance, Similarity
from fedpl.server.weighting import Around, FedBip, Memory, Weighting

if TYPE_CHECKING:
    import jax
    from fedpl_kernels import weights

    from fedpl.server.evidence import Evidence
else:
    jax, weights = map(deferred, ("jax", "fedpl_kernels.weights"))


@dataclass(frozen=True)
class Trimmed(Around):
    """Another rule's weights, from rows whose most and least similar others count as orthogonal.

    Attackers that oppose a client and those that copy it lie at the ends of its row.

    Attributes:
        inner: The rule.
        share: Of the others, trimmed at each end.
    """

    inner: Weighting = FedBip(negatives="clip")
    share: float = 0.1

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return self.inner(weights.trim(similarity, mask, share=self.share), mask, num_examples)

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        trimmed = weights.trim(evidence.similarity, evidence.mask, share=self.share)
        return self.inner.weigh(evidence._replace(similarity=trimmed), memory)

    def problems(self) -> Sequence[str]:
        found = list(self.inner.problems())
        if not 0 <= self.share < 0.5:
            found.append(f"aggregator.weighting.share: must lie in [0, 0.5), got {self.share}")
        if self.inner.by_products:
            name = type(self.inner).__name__
            found.append(
                f"aggregator.weighting.inner: {name} looks at inner products, which are not trimmed; take "
                f"{name} itself, or another inner rule"
            )
        return found


@dataclass(frozen=True)
class Krum(Weighting):
    """One average for all, of the clients whose task vectors have the nearest neighbours (Multi-Krum,
    Blanchard et al., NeurIPS 2017). Wants `Distance` similarity; in product space it looks at ΔW.

    Attributes:
        hostile: Share of clients to be prepared for.
    """

    hostile: float = 0.2
    one_for_all: ClassVar[bool] = True

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Distance,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.krum(-similarity, mask, hostile=self.hostile)

    def problems(self) -> Sequence[str]:
        if 0 <= self.hostile < 0.5:
            return ()
        return [f"aggregator.weighting.hostile: must lie in [0, 0.5), got {self.hostile}"]
