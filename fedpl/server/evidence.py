"""From task vectors to inner products: the vectors, space and columns that a `Subject` names."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from fedpl_kernels import gram_blocks, lora_delta, lora_gram
from jax import Array
from jaxtyping import Bool, Float, Int

from fedpl.records.centring import head_of
from fedpl.records.layout import AdapterLayout, Entry, Granularity, merge_ranges
from fedpl.server.state import ServerState, TaskVectors
from fedpl.server.subject import Subject


class View(NamedTuple):
    """Vectors to compare, and which of their tensors are compared as one.

    Attributes:
        before: What the vectors are added to, a row for each client or one for all.
        vectors: The vectors to compare; absent and non-finite rows are zero in every product.
        mask: Who is compared.
        layout: Names the tensors.
        groups: Tensors compared as one; a group may be empty.
        subject: Space, head, precision.
    """

    before: Float[Array, "rows params"]
    vectors: Float[Array, "clients params"]
    mask: Bool[Array, "clients"]
    layout: AdapterLayout
    groups: tuple[tuple[Entry, ...], ...]
    subject: Subject

    def gram(self, vectors: Float[Array, "clients params"] | None = None) -> Float[Array, "groups n n"]:
        """Inner products of every group; those of an empty group are those of all groups together.

        Args:
            vectors: Other vectors of the same layout, in place of the view's own; factors' space only.
        """
        if self.subject.space == "product" and vectors is None:
            products = self._by_group(self._products())
        else:
            products = self._by_group(self._factors(self.vectors if vectors is None else vectors))
        return jnp.where(jnp.array(self.compared)[:, None, None], products, products.sum(0))

    @property
    def compared(self) -> tuple[bool, ...]:
        """Which groups have tensors that are compared."""
        return tuple(bool(self._compared(group)) for group in self.groups)

    def pairs(self) -> list[tuple[int, Entry, Entry]]:
        """LoRA factors of every compared module, with the number of the group that holds its B."""
        place = {entry.name: i for i, group in enumerate(self.groups) for entry in group}
        return [(place[b.name], a, b) for a, b in self.layout.pairs if a.name in place and b.name in place]

    def columns(self, entry: Entry, after: bool) -> Float[Array, "clients _ _"]:
        """A tensor of every client, before the vectors were added or after."""
        part = slice(entry.start, entry.stop)
        vectors = self.vectors[:, part]
        values = self.before[:, part] + vectors if after else self.before[:, part]
        return jnp.broadcast_to(values, vectors.shape).reshape(-1, *entry.shape)

    def _compared(self, group: tuple[Entry, ...]) -> tuple[Entry, ...]:
        kinds = self.subject.kinds
        return tuple(entry for entry in group if entry.kind in kinds)

    def _plain(self, group: tuple[Entry, ...], kinds: tuple[str, ...]) -> Iterator[Entry]:
        """Tensors of some kinds that are compared as they are."""
        for entry in self._compared(group):
            if entry.kind in kinds and not (self.subject.centred and entry.kind == "head"):
                yield entry

    def _by_group(self, parts: list[tuple[int, Array]]) -> Float[Array, "groups n n"]:
        n = len(self.vectors)
        total = jnp.zeros((len(self.groups), n, n), jnp.float32)
        for group, products in parts:
            total = total.at[group].add(products)
        return total

    def _factors(self, vectors: Array, kinds: tuple[str, ...] = ("lora_A", "lora_B", "head")) -> list:
        ranges = [
            (i, found)
            for i, group in enumerate(self.groups)
            for found in merge_ranges(self._plain(group, kinds))
        ]
        parts = self._centred(vectors) if self.subject.centred and "head" in kinds else []
        if not ranges:
            return parts
        grams = gram_blocks(
            vectors, tuple(part for _, part in ranges), self.mask, precision=self.subject.precision
        )
        return parts + [(i, gram) for (i, _), gram in zip(ranges, grams, strict=True)]

    def _centred(self, vectors: Array) -> list[tuple[int, Array]]:
        """The centred head's inner products, of the group that holds it; none where the layout has none."""
        head = head_of(self.layout)
        if head is None:
            return []
        matrix = jnp.concatenate(head.centred(vectors), 1)
        (gram,) = gram_blocks(matrix, ((0, matrix.shape[1]),), self.mask, precision=self.subject.precision)
        return [(i, gram) for i, group in enumerate(self.groups) if head.weight in self._compared(group)]

    def _products(self) -> list[tuple[int, Array]]:
        """⟨ΔWᵢ, ΔWₖ⟩ of every module from its factors, and the head's plain inner products."""
        parts = []
        for group, a, b in self.pairs():
            before = (self.columns(a, False), self.columns(b, False))
            delta = lora_delta(*before, self.columns(a, True), self.columns(b, True))
            scale = float(self.layout.scale)
            parts.append((group, lora_gram(*delta, scale, self.mask, precision=self.subject.precision)))
        return parts + self._factors(self.vectors, ("head",))


class Evidence(NamedTuple):
    """What a weighting may look at.

    Attributes:
        similarity: Of every group.
        products: Inner products of every group.
        compared: Which groups have compared tensors of their own; the others' values are those of all.
        mask: Who is present.
        num_examples: Training examples of each client.
        round: Rounds finished before this one; where the step is compiled, known to the device only.
        personal: θ̄ᵢ before the round, a row for each client or one for all.
        vectors: τᵢ.
        true_groups: The clients' true groups where the data names them; for studies.
        choices: Which of several received models each client chose; None: there were none.
        halves: See `TaskVectors`.
    """

    similarity: Float[Array, "groups clients clients"]
    products: Float[Array, "groups clients clients"]
    compared: tuple[bool, ...]
    mask: Bool[Array, "clients"]
    num_examples: Int[Array, "clients"]
    round: int | Int[Array, ""]
    personal: Float[Array, "rows params"]
    vectors: Float[Array, "clients params"]
    true_groups: tuple[str, ...] | None = None
    choices: Int[Array, "clients"] | None = None
    halves: Float[Array, "clients"] | None = None

    @property
    def mean_similarity(self) -> Float[Array, "clients clients"]:
        """Mean over the groups with compared tensors of their own."""
        return self.similarity[np.array(self.compared)].mean(0)

    @property
    def whole_products(self) -> Float[Array, "clients clients"]:
        """Inner products of all compared tensors together."""
        return self.products[np.array(self.compared)].sum(0)

    @property
    def alignment(self) -> Float[Array, "clients"]:
        """cos(θ̄ᵢ + τᵢ, θ̄ᵢ): how little a client's model turned."""
        return _turned(self.personal, self.vectors)


@jax.jit
def _turned(
    personal: Float[Array, "rows params"], vectors: Float[Array, "clients params"]
) -> Float[Array, "clients"]:
    tuned = personal + vectors
    lengths = jnp.sqrt((tuned * tuned).sum(1) * (personal * personal).sum(1))
    return (tuned * personal).sum(1) / jnp.maximum(lengths, jnp.finfo(jnp.float32).tiny)


@jax.jit
def _since(
    reference: Float[Array, "params"],
    personal: Float[Array, "rows params"],
    vectors: Float[Array, "clients params"],
    present: Bool[Array, "clients"],
) -> Float[Array, "clients params"]:
    return jnp.where(present[:, None], personal + vectors - reference, 0.0)


def shared_groups(
    layout: AdapterLayout, granularity: Granularity, shared: tuple[Entry, ...]
) -> tuple[tuple[Entry, ...], ...]:
    """Groups of the tensors that clients exchange; a group without any is left out."""
    names = {entry.name for entry in shared}
    groups = (tuple(e for e in group if e.name in names) for group in layout.groups(granularity))
    return tuple(group for group in groups if group)


def compared_vectors(
    subject: Subject, state: ServerState, vectors: TaskVectors, present: Bool[Array, "clients"]
) -> tuple[Array, Array, dict[str, Array]]:
    """The vectors to compare, what they are added to, and what has to be remembered.

    Args:
        subject: Which vectors.
        state: State before the round.
        vectors: This round's task vectors.
        present: Whose rows hold a new task vector.

    Returns:
        Vectors, their base, and new entries of the subject's memory.
    """
    matrix = vectors.matrix
    if subject.vectors == "round":
        return matrix, state.personal, {}
    if subject.vectors == "cumulative":
        return _since(state.reference, state.personal, matrix, present), state.reference[None], {}
    new = jnp.where(present[:, None], matrix, 0.0)
    memory = state.of("subject")
    total = memory.get("vectors.sum", jnp.zeros_like(matrix))
    weight = memory.get("vectors.weight", jnp.zeros(len(matrix)))
    decay = jnp.where(present, subject.decay, 1.0)
    total, weight = total * decay[:, None] + new, weight * decay + present
    mean = total / jnp.maximum(weight, 1.0)[:, None]
    return mean, state.personal, {"vectors.sum": total, "vectors.weight": weight}


def averaged(
    name: str, decay: float, memory: dict[str, Array], new: Float[Array, "groups n n"], mask: Array
) -> tuple[Array, dict[str, Array]]:
    """Running mean over the rounds, pair by pair; a pair counts where both were present.

    Args:
        name: Name in the memory.
        decay: Weight of the past per round.
        memory: The subject's memory.
        new: This round's values, zero for absent pairs.
        mask: Who is present, with a direction, [groups, n] or [n].

    Returns:
        The mean, and new entries of the memory.
    """
    pair = jnp.broadcast_to(mask[..., :, None] & mask[..., None, :], new.shape)
    total = memory.get(f"{name}.sum", jnp.zeros_like(new))
    weight = memory.get(f"{name}.weight", jnp.zeros_like(new))
    past = jnp.where(pair, decay, 1.0)
    total, weight = total * past + jnp.where(pair, new, 0.0), weight * past + pair
    mean = total / jnp.where(weight > 0, weight, 1.0)
    return mean, {f"{name}.sum": total, f"{name}.weight": weight}
