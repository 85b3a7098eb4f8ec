"""Third choice of the server: from similarities to mixing weights. Settings only; arithmetic in kernels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.server.similarity import Likeness, Similarity

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from fedpl_kernels import weights

    from fedpl.server.evidence import Evidence
else:
    jax, jnp, weights = map(deferred, ("jax", "jax.numpy", "fedpl_kernels.weights"))

Memory: TypeAlias = "dict[str, jax.Array]"  # what a choice keeps between rounds, by name


class Weighting(ABC):
    """A pure function from similarities [groups, n, n] to weights of the same shape.

    Row i holds what client i takes of every client's task vector. Rows and columns of clients that are
    masked out are those of the identity. A rule that looks at more than similarities, or remembers
    something between rounds, overrides `weigh`; the others are functions of three arrays.
    """

    one_for_all: ClassVar[bool] = False
    """Whether all clients get the same row."""
    by_vectors: ClassVar[bool] = False
    """Whether it looks at task vectors or aggregates themselves, which ``server.storage: disk`` has not."""
    by_products: ClassVar[bool] = False
    """Whether it looks at inner products in place of similarities: what is done to those passes it by."""

    @property
    def on_host(self) -> bool:
        """Whether it looks at numbers in Python (branches, scikit-learn): the server's step is not compiled
        then."""
        return False

    @property
    def remembers(self) -> bool:
        """Whether it keeps anything between rounds; one that says nothing of it and has its own `weigh` is
        taken to. Its rounds are those of all clients, present or not."""
        return type(self).weigh is not Weighting.weigh

    @property
    def by_choice(self) -> bool:
        """Whether it looks at which of several received models clients chose."""
        return False

    @property
    def halves(self) -> int:
        """How often each client is asked what two halves of its examples have in common; 0: never."""
        return 0

    @property
    def signed(self) -> bool:
        """Whether its weights may be negative. Then whoever counts in part is discounted before it weighs:
        a row that is scaled afterwards has no floor."""
        return False

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        """Kinds of similarity whose values its formula can take; others are refused."""
        return (Similarity,)

    @abstractmethod
    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']": ...

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        """Weights, and new entries of its memory.

        Args:
            evidence: What is known about the round.
            memory: What it remembers.
        """
        return self(evidence.similarity, evidence.mask, evidence.num_examples), {}

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        return ()


class Around(Weighting):
    """A weighting that changes what another one gives: it takes and needs what that one does.

    Attributes:
        inner: The other one.
    """

    inner: Weighting

    @property
    def signed(self) -> bool:
        return self.inner.signed

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return self.inner.wants

    @property
    def halves(self) -> int:
        return self.inner.halves

    @property
    def by_choice(self) -> bool:
        return self.inner.by_choice

    @property
    def on_host(self) -> bool:
        return self.inner.on_host

    @property
    def remembers(self) -> bool:
        return self.inner.remembers


@dataclass(frozen=True)
class FedBip(Weighting):
    """p_ik = s_ik / Σ_j s_ij, the weights of FedBip (arXiv 2509.12697, server level), with its gaps closed.

    The paper does not say what happens when cosines are negative or a row's sum vanishes, as it does for a
    client that opposes the others; both are settings here. Kept negatives let one opposed client multiply
    what another one receives (cosine −0.75: weights 4 and −3); `bound` is ours and limits that.

    Attributes:
        negatives: keep: as in the formula, opposed clients get negative weight; clip: they get none; abs:
            weight by magnitude.
        floor: Smallest row sum at which the formula is used; 1 is the client's own cosine with itself.
        fallback: What a client below the floor receives: local: its own task vector alone; uniform: the
            plain average.
        bound: Largest Σₖ |pᵢₖ| of a row. Where the formula gives more, the row's negative cosines are made
            smaller, all by one factor, until it holds; null: the formula as published.
    """

    negatives: Literal["keep", "clip", "abs"] = "keep"
    floor: float = 0.2
    fallback: Literal["local", "uniform"] = "local"
    bound: float | None = 5.0

    @property
    def signed(self) -> bool:
        return self.negatives == "keep"

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Likeness,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.fedbip(
            similarity,
            mask,
            negatives=self.negatives,
            floor=self.floor,
            fallback=self.fallback,
            bound=self.bound,
        )

    def problems(self) -> Sequence[str]:
        checks = (
            (self.floor > 0, f"floor: must be positive, got {self.floor}: weights would be unbounded"),
            (self.bound is None or self.bound > 1, f"bound: more than 1, or null, got {self.bound}"),
        )
        return [f"aggregator.weighting.{what}" for holds, what in checks if not holds]


@dataclass(frozen=True)
class Local(Weighting):
    """Identity: every client keeps its own task vector alone (local-only training)."""

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return jnp.broadcast_to(jnp.eye(similarity.shape[-1], dtype=similarity.dtype), similarity.shape)


@dataclass(frozen=True)
class Uniform(Weighting):
    """The same share of every participating client (FedAvg with equal weights)."""

    one_for_all: ClassVar[bool] = True

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return jnp.broadcast_to(weights.uniform(mask), similarity.shape)


@dataclass(frozen=True)
class BySize(Weighting):
    """Shares in proportion to the number of training examples (FedAvg, FedIT)."""

    one_for_all: ClassVar[bool] = True

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return jnp.broadcast_to(weights.by_size(num_examples, mask), similarity.shape)


@dataclass(frozen=True)
class TrueGroups(Weighting):
    """The plain average inside the clients' true groups: no method is told; an upper bound for studies."""

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        raise TypeError("TrueGroups needs the groups' names: call weigh")

    @property
    def remembers(self) -> bool:
        return False

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        names = evidence.true_groups
        if names is None or not all(names):
            raise UserError("aggregator.weighting: TrueGroups needs data whose clients name their group")
        order = sorted(set(names))
        labels = jnp.array([order.index(name) for name in names])
        return jnp.broadcast_to(weights.clusters(labels, evidence.mask), evidence.similarity.shape), {}
