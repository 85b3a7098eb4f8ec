"""Weightings of published methods that are more than a normalised similarity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.server.similarity import Distance, Likeness, Similarity
from fedpl.server.weighting import Memory, Weighting

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from fedpl_kernels import weights

    from fedpl.server.evidence import Evidence
else:
    jax, jnp, weights = map(deferred, ("jax", "jax.numpy", "fedpl_kernels.weights"))


@dataclass(frozen=True)
class SimplexQp(Weighting):
    """argmin_p −Σ_k p_k s_ik + strength ‖p − prior‖² on the simplex, in closed form.

    pFedGraph (Ye et al., ICML 2023), whose similarity is the cosine of cumulative task vectors.

    Attributes:
        strength: λ: towards the prior as it grows, towards the one most similar client as it vanishes.
        saturation: Similarities above count as 1 (the published code; the paper has none); 1 turns it off.
        prior: Shares by training examples, or equal.
    """

    strength: float = 0.8
    saturation: float = 0.9
    prior: Literal["size", "uniform"] = "size"

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Likeness,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        prior = num_examples if self.prior == "size" else None
        return weights.simplex_qp(
            similarity, mask, prior=prior, strength=self.strength, saturation=self.saturation
        )

    def problems(self) -> Sequence[str]:
        if self.strength > 0:
            return ()
        return [f"aggregator.weighting.strength: must be positive, got {self.strength}"]


@dataclass(frozen=True)
class FedAmp(Weighting):
    """ξ_ik = α/σ · exp(−‖wᵢ − wₖ‖² / σ), ξ_ii = 1 − Σ_k≠i ξ_ik (Huang et al., AAAI 2021).

    Distances of LoRA adapters are far below the published σ = 1, at which
    α = 1 gives everyone the self-weight 2 − n; so both have defaults that follow the data.

    Attributes:
        sigma: σ in squared units of the vectors; null: the median squared distance.
        alpha: α; null: σ / (n − 1), the largest for which no self-weight can be negative.
    """

    sigma: float | None = None
    alpha: float | None = None

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Distance,)

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        return weights.fedamp(-similarity, mask, sigma=self.sigma, alpha=self.alpha)

    def problems(self) -> Sequence[str]:
        checks = {"sigma": self.sigma, "alpha": self.alpha}
        return [
            f"aggregator.weighting.{name}: must be positive or null, got {value}"
            for name, value in checks.items()
            if value is not None and value <= 0
        ]


@dataclass(frozen=True)
class FedAwa(Weighting):
    """One row for all, learned on the server (FedAWA, CVPR 2025).

    λ = softmax(T) minimises Σ_k λ_k (1 − cos(θ_k, θ̄)) + Σ_k λ_k ‖τ_k − Σ_j λ_j τ_j‖ by Adam, T carried over
    the rounds. T starts at the logarithm of the data shares: the published code starts at the shares
    themselves, whose softmax is nearly uniform.

    Attributes:
        lr: Step of Adam.
        steps: Steps a round.
    """

    lr: float = 1e-3
    steps: int = 1
    one_for_all: ClassVar[bool] = True
    by_vectors: ClassVar[bool] = True

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        raise TypeError("FedAwa learns its weights over the rounds: call weigh")

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        gram = evidence.whole_products
        start = memory.get("logits")
        if start is None:
            start = jnp.log(jnp.maximum(evidence.num_examples, 1).astype(jnp.float32))
        logits = weights.fedawa_logits(
            start, gram, evidence.alignment, evidence.mask, lr=self.lr, steps=self.steps
        )
        row = weights.by_size(jnp.exp(logits - logits.max()), evidence.mask)
        return jnp.broadcast_to(row, evidence.similarity.shape), {"logits": logits}

    def problems(self) -> Sequence[str]:
        found = []
        if self.lr <= 0:
            found.append(f"aggregator.weighting.lr: must be positive, got {self.lr}")
        if self.steps < 1:
            found.append(f"aggregator.weighting.steps: at least 1, got {self.steps}")
        return found
