"""A round of the server between weighing and combining: what there is to combine."""

from typing import NamedTuple

from jax import Array
from jaxtyping import Bool, Float

from fedpl.records.layout import AdapterLayout, Entry


class Round(NamedTuple):
    """What there is to combine.

    Attributes:
        personal: θ̄ᵢ before the round, a row for each client or one for all.
        vectors: τᵢ.
        weights: pᵢₖ of every group; zero rows and columns for the absent.
        groups: The tensors of every group.
        mask: Whose task vectors count.
        layout: All tensors.
        reference: θ₀.
    """

    personal: Float[Array, "rows params"]
    vectors: Float[Array, "clients params"]
    weights: Float[Array, "groups clients clients"]
    groups: tuple[tuple[Entry, ...], ...]
    mask: Bool[Array, "clients"]
    layout: AdapterLayout
    reference: Float[Array, "params"]
