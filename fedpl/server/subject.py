"""First choice of the server: what of the clients is compared. Settings only; arithmetic in `evidence`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fedpl.records.centring import head_of
from fedpl.records.layout import AdapterLayout


@dataclass(frozen=True)
class Subject:
    """What is compared: which vectors, in which space, over how many rounds.

    Attributes:
        vectors: round: this round's task vectors (FedBip); cumulative: θᵢ − θ₀, all that happened since the
            start (pFedGraph); averaged: the running mean of a client's task vectors.
        average: What else is averaged over the rounds so far, pair by pair, over the rounds in which both
            took part: none; products: the inner products; similarity: the similarities.
        decay: Weight of the past in all averages, per round: 1 is the plain mean, less forgets.
        space: factors: LoRA's A and B as they are; lora_A or lora_B: one of them; product: the change of
            ΔW = s·BA itself, exact, the same for any factors with the same product; head: none of them, but
            the factors after all where a task has no head.
        head: Whether the classification head is compared too.
        centred: Whether heads are compared without what all classes share, which changes no answer, and as if
            the features had mean zero: without what the frequencies of a client's classes move. Heads of two
            classes, or without a bias, are compared as they are.
        precision: Arithmetic of inner products: highest (float32), tf32 or bf16 (float32 accumulation).
    """

    vectors: Literal["round", "cumulative", "averaged"] = "round"
    average: Literal["none", "products", "similarity"] = "none"
    decay: float = 1.0
    space: Literal["factors", "lora_A", "lora_B", "product", "head"] = "factors"
    head: bool = True
    centred: bool = False
    precision: Literal["highest", "tf32", "bf16"] = "highest"

    def of(self, layout: AdapterLayout) -> "Subject":
        """What is compared in a model: whole adapters where heads are asked for and there are none."""
        space, headed = self.space, any(entry.kind == "head" for entry in layout.entries)
        return replace(
            self,
            space="factors" if space == "head" and not headed else space,
            centred=self.centred and head_of(layout) is not None,
        )

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of the tensors that are compared."""
        lora = {"lora_A", "lora_B"} if self.space in ("factors", "product") else {self.space}
        return frozenset(lora | ({"head"} if self.head else set()))

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        found = []
        if not 0 < self.decay <= 1:
            found.append(f"aggregator.subject.decay: must lie in (0, 1], got {self.decay}")
        if self.space == "product" and self.vectors == "averaged":
            found.append(
                "aggregator.subject.space: the product of averaged factors is no average of products; use "
                "average: products with space: product"
            )
        if self.centred and not self.head:
            found.append("aggregator.subject.centred: must be false without head, which is not compared")
        if self.space == "head" and not self.head:
            found.append("aggregator.subject.head: must be true with space: head, or nothing is compared")
        return found
