"""Second choice of the server: how alike two clients are. Settings only; the arithmetic is in kernels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Bool, Float

from fedpl.deferred import deferred

if TYPE_CHECKING:
    import fedpl_kernels as kernels
    import jax
    import jax.numpy as jnp
    from fedpl_kernels import weights

    from fedpl.server.evidence import View
else:
    jax, jnp, kernels, weights = map(deferred, ("jax", "jax.numpy", "fedpl_kernels", "fedpl_kernels.weights"))


class Similarity(ABC):
    """Pure functions from the vectors that are compared to similarities [groups, n, n].

    First `products` of all pairs (inner products, unless a similarity looks at something else), which may
    be averaged over rounds, then similarities from these alone.
    """

    by_pair: ClassVar[bool] = False
    """Whether `products` needs both LoRA factors of a module together."""

    def products(self, view: "View") -> "Float[jax.Array, 'groups n n']":
        """What is kept of every pair, [groups, n, n]: a sum over tensors, which may come in parts."""
        return view.gram()

    @abstractmethod
    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        """Similarities; clients without a direction have a zero diagonal."""

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        return ()


class Likeness(Similarity):
    """Positive for clients that are alike, about zero for strangers."""


class Bounded(Likeness):
    """At most 1, and 1 for a client with itself."""


@dataclass(frozen=True)
class Cosine(Bounded):
    """Cosine of the angle between vectors (FedBip, server level)."""

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return kernels.cosine(products, mask)


@dataclass(frozen=True)
class InnerProduct(Likeness):
    """⟨τᵢ, τₖ⟩ itself: clients that move further weigh more. `Wiener` weights start from it."""

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return products


@dataclass(frozen=True)
class CentredCosine(Bounded):
    """Cosine after the mean over the present clients is taken out: what sets clients apart.

    Rows sum to about zero, so FedBip's normaliser vanishes; use a softmax or clip negatives.
    """

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return kernels.cosine(weights.centre(products, mask), mask)


@dataclass(frozen=True)
class CorrectedCosine(Bounded):
    """Cosine of the clients' true directions: the noise of few examples and steps is taken out.

    The noise of two clients is independent, so only the diagonal of the inner products carries it. It is
    refilled by a low-rank fit, and cosines are divided by the roots of both clients' shares of signal
    (the correction for attenuation in test theory).

    Attributes:
        rank: Directions that clients are thought to share.
        floor: Smallest share of signal that is divided by.
    """

    rank: int = 4
    floor: float = 0.05

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.corrected(kernels.cosine(products, mask), mask, rank=self.rank, floor=self.floor)

    def problems(self) -> Sequence[str]:
        found = []
        if self.rank < 1:
            found.append(f"aggregator.similarity.rank: at least 1, got {self.rank}")
        if not 0 < self.floor <= 1:
            found.append(f"aggregator.similarity.floor: must lie in (0, 1], got {self.floor}")
        return found


@dataclass(frozen=True)
class Distance(Similarity):
    """−‖xᵢ − xₖ‖², for weightings that want distances (FedAMP); the diagonal is 0.

    With cumulative vectors it is the distance of the models.
    """

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return -kernels.squared_distances(products).squared


@dataclass(frozen=True)
class Rbf(Bounded):
    """exp(−‖xᵢ − xₖ‖² / σ), FedAMP's kernel (Huang et al., AAAI 2021).

    Attributes:
        sigma: In squared units of the vectors; null takes the median squared distance of the present pairs,
            because distances of LoRA adapters are far below 1 and a fixed 1 makes all clients equal.
    """

    sigma: float | None = None

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.rbf(products, mask, sigma=self.sigma)

    def problems(self) -> Sequence[str]:
        if self.sigma is None or self.sigma > 0:
            return ()
        return [f"aggregator.similarity.sigma: must be positive or null, got {self.sigma}"]


@dataclass(frozen=True)
class SignAgreement(Bounded):
    """Share of agreeing signs less that of opposite ones: the cosine of the vectors' signs."""

    def products(self, view: "View") -> "Float[jax.Array, 'groups n n']":
        return view.gram(jnp.sign(view.vectors))

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return kernels.cosine(products, mask)


@dataclass(frozen=True)
class PrincipalAngles(Bounded):
    """How far the clients' updates use the same output directions: ‖UᵢᵀUₖ‖²_F / r of the factors B.

    U is an orthonormal basis of B's columns, so the value does not depend on the factorisation, and
    neither on signs: opposed clients count as alike. Source: the distance of HiLoRA (CVPR 2026).

    Attributes:
        threshold: Singular values below this share of the largest are no direction.
    """

    threshold: float = 1e-3
    by_pair: ClassVar[bool] = True

    def products(self, view: "View") -> "Float[jax.Array, 'groups n n']":
        parts = [
            (group, weights.subspace_overlap(view.columns(b, True), view.mask, threshold=self.threshold))
            for group, _, b in view.pairs()
        ]
        return view._by_group(parts)

    def __call__(
        self, products: "Float[jax.Array, 'groups n n']", mask: "Bool[jax.Array, 'n']"
    ) -> "Float[jax.Array, 'groups n n']":
        return kernels.cosine(products, mask)
