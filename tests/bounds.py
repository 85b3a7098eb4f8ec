"""How far float32 may be from the exact result: by its arithmetic, not by what one machine once gave.

An operation is off by at most the unit roundoff u of its result. What went through n of them in a row is off
by at most γₙ = n u / (1 − n u) of the sizes of the terms it was made of, in whatever order they were added
and with fused multiply-adds or without (Higham, Accuracy and Stability of Numerical Algorithms, 2002, 3.1):
instruction set, blocks and threads do not matter. Long sums stay far below: n roundings that do not conspire
add up to more than λ √n u with a probability of at most 2 exp(−λ²/2) (Higham and Mary, SIAM J. Sci. Comput.
2019): 3e-8 for λ = 6. `gamma` is the smaller of the two.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

F32 = 2.0**-24
BF16 = 2.0**-8
_LAMBDA = 6.0
# The kernels add up at most so many columns in one chain, and then the chains (`_CHAIN` of `_gram`).
_CHAIN = 512
# Roundings beside a sum's own: a base or a scale, an exponential or a root (of 2 units in the last place).
_BESIDE = 8


def gamma(n: float, u: float = F32) -> float:
    """Largest error after n roundings in a row, relative to the sum of the terms' sizes."""
    return min(n * u / (1 - n * u), _LAMBDA * math.sqrt(n) * u)


def chained(d: int) -> float:
    """Roundings in a row of a sum of d terms in chains of at most `_CHAIN`, which are then added."""
    return min(d, _CHAIN + d / _CHAIN)


def product(
    left: ArrayLike, right: ArrayLike, *added: ArrayLike, error: ArrayLike = 0.0, inputs: float = 0.0
) -> np.ndarray:
    """Of left @ right + added, entry by entry; `error` is what `left` is off by already.

    `inputs` is the unit roundoff of the type that both operands are rounded to first.
    """
    left, right = np.abs(np.asarray(left, np.float64)), np.abs(np.asarray(right, np.float64))
    sizes = left @ right * (1 + inputs) ** 2 + sum(np.abs(np.asarray(a, np.float64)) for a in added)
    own = gamma(left.shape[-1] + _BESIDE) * sizes + left @ right * ((1 + inputs) ** 2 - 1)
    return own + np.broadcast_to(np.asarray(error, np.float64), left.shape) @ right


def gram(d: float, inputs: float = 0.0) -> float:
    """Of ⟨x, y⟩ after d roundings in a row, relative to |x| |y|: Σ |xᵢ yᵢ| is no more (Cauchy, Schwarz)."""
    return (1 + inputs) ** 2 * (1 + gamma(d)) - 1


def cosine(d: float) -> float:
    """Of ⟨x, y⟩ / (|x| |y|) from three such products: the two roots each take half of their error."""
    return 2 * gamma(d) + _BESIDE * F32


def normalised(gram: ArrayLike, error: ArrayLike) -> np.ndarray:
    """Of Gᵢⱼ / √(Gᵢᵢ Gⱼⱼ) when G is off by `error`."""
    gram, error = np.asarray(gram, np.float64), np.asarray(error, np.float64)
    norms = np.sqrt(gram.diagonal())
    root = error.diagonal() / gram.diagonal() / 2
    cosines = np.abs(gram) / np.outer(norms, norms)
    return error / np.outer(norms, norms) + cosines * np.add.outer(root, root) + _BESIDE * F32


def squared_norm(d: int, chain: int = _CHAIN) -> float:
    """Of a squared norm, relative to it: an upper bound of the error's standard deviation.

    The partial sums s of a chain of L grow evenly, and each is rounded by u s at most, u s / √3 in the root
    mean square: u √L / 3 of the chain's result. k chains average out, and are then added: u √(L / k + k) / 3.
    """
    chains = math.ceil(d / chain)
    return F32 * math.sqrt(min(d, chain) / chains + chains) / 3


def shares(values: ArrayLike, error: ArrayLike = 0.0) -> np.ndarray:
    """Of rows divided by their sums; `error` is what the values are off by already.

    A row's sum may be far smaller than its terms, which is what makes a weight uncertain.
    """
    values = np.asarray(values, np.float64)
    off = np.broadcast_to(np.asarray(error, np.float64), values.shape)
    own = gamma(values.shape[-1] + _BESIDE)
    total = np.abs(values.sum(-1, keepdims=True))
    wrong = off.sum(-1, keepdims=True) + own * np.abs(values).sum(-1, keepdims=True)
    return (off + np.abs(values) / total * wrong) / (total - wrong) + own * np.abs(values) / total


def trained(steps: int, layers: int = 2, width: int = 64) -> float:
    """Of a task vector that two ways of the same training give, relative to its length: an estimate.

    Forth and back a layer takes about 16 products, in a row, of chains of `width`; over thousands of numbers
    so many roundings add up to √n u of a gradient's length. Gradients of one tensor differ by an order of
    magnitude, and AdamW divides each by its own size: the small ones bring what they were rounded by.
    """
    return 10 * math.sqrt(16 * layers * width * steps) * F32


def within(found: ArrayLike, expected: ArrayLike, allowed: ArrayLike) -> None:
    """Asserts that nothing is off by more than allowed; says by how much it is."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    error, allowed = np.abs(found - expected), np.broadcast_to(allowed, found.shape)
    far = ~(error <= allowed)  # a NaN is far
    worst = [f"{e:.2e} (allowed {a:.2e})" for e, a in zip(error[far][:3], allowed[far][:3], strict=True)]
    assert not far.any(), f"{far.sum()} of {far.size} are off by more than their arithmetic: {worst}"
