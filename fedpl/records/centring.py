"""Heads without what changes no answer, and without what the frequencies of classes move.

What is added to the rows of all classes alike changes no answer. Gradients add nothing of the kind, but Adam
does: it takes as large a step where all examples agree a little as where few agree much. So classes that a
client has no example of all go down together, which looks like something that clients have in common.

A head's step is W_c = Σₓ (y_c − p_c) h(x) and b_c = Σₓ (y_c − p_c). With features h = h̄ + δ, W has a part
b h̄ᵀ, which says how frequent a client's classes are and not what they mean.
"""

from typing import Any, NamedTuple

from jaxtyping import Float

from fedpl.records.layout import AdapterLayout, Entry

_TINY = 1e-30


class Head(NamedTuple):
    """A linear classification head of three classes or more.

    Attributes:
        weight: Its weight [classes, features].
        bias: Its bias.
    """

    weight: Entry
    bias: Entry

    def centred(
        self, vectors: Float[Any, "clients params"]
    ) -> tuple[Float[Any, "clients weights"], Float[Any, "clients classes"]]:
        """Task vectors of the head, weight and bias, without what all classes share and frequencies move.

        h̄ is the least squares of W ≈ b h̄ᵀ, client by client; of b h̄ᵀ as much is taken out as the adjusted
        coefficient of determination says is no coincidence (Ezekiel, 1930), and of b itself the same part:
        nothing where b explains no more than any direction among as many classes would.

        Args:
            vectors: Rows of NumPy, JAX or torch.
        """
        (classes, features), n = self.weight.shape, len(vectors)
        weight = vectors[:, self.weight.start : self.weight.stop].reshape(n, classes, features)
        bias = vectors[:, self.bias.start : self.bias.stop]
        weight, bias = weight - weight.mean(1)[:, None], bias - bias.mean(1)[:, None]
        along = (bias[:, :, None] * weight).sum(1)
        energy, whole = (bias * bias).sum(1)[:, None], (weight * weight).sum((1, 2))[:, None]
        explained = ((along * along).sum(1)[:, None] / (energy * whole).clip(min=_TINY)).clip(max=1.0)
        adjusted = (1.0 - (1.0 - explained) * ((classes - 1) / (classes - 2))).clip(min=0.0)
        part = adjusted / explained.clip(min=_TINY)
        mean = along * (part / energy.clip(min=_TINY))
        return (weight - bias[:, :, None] * mean[:, None]).reshape(n, -1), bias * (1.0 - part)


def head_of(layout: AdapterLayout) -> Head | None:
    """The head, if it can be centred: linear, with a bias, three classes or more."""
    found = [entry for entry in layout.entries if entry.kind == "head"]
    if [len(entry.shape) for entry in found] == [1, 2]:
        found = found[::-1]
    if [len(entry.shape) for entry in found] != [2, 1]:
        return None
    weight, bias = found
    # Of two classes what they mean and how frequent they are lie in the same direction.
    return Head(weight, bias) if weight.shape[0] == bias.shape[0] >= 3 else None
