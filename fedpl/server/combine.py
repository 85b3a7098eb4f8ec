"""Fourth choice of the server: how weighted task vectors become new aggregates. Settings; see `products`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from jaxtyping import Float

from fedpl.deferred import deferred

if TYPE_CHECKING:
    import jax

    from fedpl.server import products
    from fedpl.server.round import Round
else:
    jax, products = map(deferred, ("jax", "fedpl.server.products"))


Steps: TypeAlias = "tuple[Float[jax.Array, 'clients params'], Float[jax.Array, 'weights'] | None]"


class Combine(ABC):
    """A pure function from weighted task vectors to the steps θ̄ᵢ' − θ̄ᵢ of the shared columns."""

    shifts_base: ClassVar[bool] = False
    """Whether a part of the result goes into the frozen weights, the same for all clients."""

    by_block: ClassVar[bool] = False
    """Whether a transformer block's result depends on that block alone; ``server.storage: disk`` needs it."""

    by_pair: ClassVar[bool] = True
    """Whether both LoRA factors of a module are needed together."""

    @property
    def by_client(self) -> bool:
        """Whether two clients of one aggregate and one row of weights may get different steps; one that says
        nothing of it is taken to."""
        return True

    @abstractmethod
    def __call__(self, round: "Round") -> Steps:
        """Steps, zero in columns of no group, and what is added to the residual; None: nothing."""


@dataclass(frozen=True)
class FactorWise(Combine):
    """Σₖ pᵢₖ τₖ, tensor by tensor (FedBip; the FedIT way for LoRA's factors).

    Attributes:
        mixes: updates: task vectors onto the client's own aggregate (FedBip); followers: the same, but who
            has no weight in its own row goes on from the aggregates of those that it follows; models:
            Σₖ pᵢₖ θₖ takes the place of the aggregate (FedAMP, pFedGraph, clusters). Equal when all start
            from one model.
        match_norm: Scale a client's step, group by group, to the length of its own task vector, which
            averaging of nearly orthogonal vectors would shorten.
    """

    by_block: ClassVar[bool] = True
    by_pair: ClassVar[bool] = False
    mixes: Literal["updates", "followers", "models"] = "updates"
    match_norm: bool = False

    @property
    def by_client(self) -> bool:
        return self.match_norm

    def __call__(self, round: "Round") -> Steps:
        mix = {
            "updates": products.mix_groups,
            "followers": products.mix_with_followers,
            "models": products.mix_models,
        }
        step = mix[self.mixes](round)
        return (products.scale_to_own(round, step) if self.match_norm else step), None


@dataclass(frozen=True)
class ProductSpace(Combine):
    """The best rank-r factors of ΔW̄ᵢ + Σₖ pᵢₖ (ΔWₖ − ΔW̄ₖ), module by module; the head factor-wise.

    The mean of A times the mean of B is not the mean of BA; with weights that may be negative the error
    grows. By QR of the stacked factors and an SVD of the small rest (FlexLoRA, NeurIPS 2024, personalised).

    Attributes:
        mixes: updates or models, as in `FactorWise`.
        balance: Singular values shared evenly between A and B; else all on B, as FlexLoRA does.
    """

    by_block: ClassVar[bool] = True
    mixes: Literal["updates", "models"] = "updates"
    balance: bool = True

    @property
    def by_client(self) -> bool:
        return False

    def __call__(self, round: "Round") -> Steps:
        return products.mix_products(round, models=self.mixes == "models", balance=self.balance), None


@dataclass(frozen=True)
class Residual(Combine):
    """Factors are averaged, and what their product misses of the mean of products, s (Σ p BA − B̄Ā), is added
    to the frozen weights of all clients: exact (FedEx-LoRA, ACL 2025). Needs the same weights for all."""

    shifts_base: ClassVar[bool] = True
    by_block: ClassVar[bool] = True

    @property
    def by_client(self) -> bool:
        return False

    def __call__(self, round: "Round") -> Steps:
        step = products.mix_models(round)
        return step, products.mean_product(round) - products.own_product(round, step)


@dataclass(frozen=True)
class Stacking(Combine):
    """Σₖ pₖ s BₖAₖ, exact, goes into the frozen weights of all clients, who start with fresh factors (FLoRA,
    NeurIPS 2024, whose stacked factors have this product). Needs the same weights for all."""

    shifts_base: ClassVar[bool] = True
    by_block: ClassVar[bool] = True

    @property
    def by_client(self) -> bool:
        return False

    def __call__(self, round: "Round") -> Steps:
        return products.fresh_factors(round, products.mix_models(round)), products.mean_product(round)
