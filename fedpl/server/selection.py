"""Weightings that sharpen similarities, select neighbours, or blend with a fixed share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.server.similarity import Likeness, Similarity
from fedpl.server.weighting import Around, FedBip, Memory, Weighting

if TYPE_CHECKING:
    import jax
    from fedpl_kernels import weights

    from fedpl.server.evidence import Evidence
else:
    jax, weights = map(deferred, ("jax", "fedpl_kernels.weights"))


@dataclass(frozen=True)
class Softmax(Weighting):
    """p_ik ∝ exp(s_ik / T) over the present clients.

    Attributes:
        temperature: T, in the unit of the similarity: 0.1 in pFedGraph's FedAMP, 0.5 in FedMosaic's RELA.
    """

    temperature: float = 0.1

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.softmax(similarity, mask, temperature=self.temperature)

    def problems(self) -> Sequence[str]:
        if self.temperature > 0:
            return ()
        return [f"aggregator.weighting.temperature: must be positive, got {self.temperature}"]


@dataclass(frozen=True)
class Relu(Weighting):
    """p_ik ∝ max(s_ik, 0)."""

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Likeness,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.relu(similarity, mask)


@dataclass(frozen=True)
class TopK(Weighting):
    """As `Relu`, over the k most similar others and the client itself.

    Attributes:
        k: Number of neighbours.
    """

    k: int = 3

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Likeness,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.top_k(similarity, mask, k=self.k)

    def problems(self) -> Sequence[str]:
        return () if self.k >= 0 else [f"aggregator.weighting.k: must not be negative, got {self.k}"]


@dataclass(frozen=True)
class Threshold(Weighting):
    """As `Relu`, over neighbours at least this similar.

    Attributes:
        minimum: Smallest similarity that counts.
    """

    minimum: float = 0.0

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Likeness,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.threshold(similarity, mask, minimum=self.minimum)


@dataclass(frozen=True)
class FixedSelf(Around):
    """Another rule's weights with the client's own share fixed.

    Attributes:
        inner: The rule for the others' shares.
        self_weight: p_ii: 0.3 in pFedGraph's FedAMP.
    """

    inner: Weighting = FedBip(negatives="clip")
    self_weight: float = 0.3

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.fixed_self(self.inner(similarity, mask, num_examples), self.self_weight)

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        inner, new = self.inner.weigh(evidence, memory)
        return weights.fixed_self(inner, self.self_weight), new

    def problems(self) -> Sequence[str]:
        found = list(self.inner.problems())
        if not 0 <= self.self_weight <= 1:
            found.append(f"aggregator.weighting.self_weight: must lie in [0, 1], got {self.self_weight}")
        return found


@dataclass(frozen=True)
class Blend(Around):
    """(1 − strength) times another rule's weights, and the rest in proportion to training examples.

    Attributes:
        inner: The rule.
        strength: Share of the average by size; 0 has none, 1 is federated averaging.
    """

    inner: Weighting = FedBip()
    strength: float = 0.5

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        inner = self.inner(similarity, mask, num_examples)
        return weights.blend_prior(inner, num_examples, mask, strength=self.strength)

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        inner, new = self.inner.weigh(evidence, memory)
        return weights.blend_prior(inner, evidence.num_examples, evidence.mask, strength=self.strength), new

    def problems(self) -> Sequence[str]:
        found = list(self.inner.problems())
        if not 0 <= self.strength <= 1:
            found.append(f"aggregator.weighting.strength: must lie in [0, 1], got {self.strength}")
        return found


@dataclass(frozen=True)
class Wiener(Weighting):
    """W = S (S + N)⁻¹, rows scaled to sum to one: the best linear estimate of clients' true directions.

    S is the Gram matrix of the true directions, N the noise energies; both come from the inner products
    alone, because the noise of two clients is independent (ours, FedBip-W). Local-only training, averaging
    and grouping are its limits. `InnerProduct` and `Cosine` are what it was made for.

    Attributes:
        rank: Directions that clients are thought to share; fewer than the clients.
        floor: A client whose row sums to less keeps its own update.
    """

    rank: int = 4
    floor: float = 0.2

    @property
    def signed(self) -> bool:
        return True

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Likeness,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.wiener(similarity, mask, rank=self.rank, floor=self.floor)

    def problems(self) -> Sequence[str]:
        found = []
        if self.rank < 1:
            found.append(f"aggregator.weighting.rank: at least 1, got {self.rank}")
        if self.floor <= 0:
            found.append(f"aggregator.weighting.floor: must be positive, got {self.floor}")
        return found
