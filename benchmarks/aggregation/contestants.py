"""Who takes part, in this process: ours in each mode, torch, NumPy, and pair-by-pair loops."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import torch
from fedpl_kernels import gram, mix, reference

Call = Callable[[], object]
PAIR_ROWS = 4  # the loops are timed on so many rows against all, and scaled


def vectors(n: int, d: int) -> np.ndarray:
    """The task vectors of a case; every process draws the same."""
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


def grams(x: np.ndarray, lent: jnp.ndarray) -> dict[str, Call]:
    """All ways to the Gram matrix of `x`; `lent` is the same as a JAX array."""
    tensor, half = torch.from_numpy(x), lent.astype(jnp.bfloat16)
    return {
        "ours highest": lambda: gram(lent),
        "ours tf32": lambda: gram(lent, precision="tf32"),
        "ours bf16": lambda: gram(lent, precision="bf16"),
        "ours stored bf16": lambda: gram(half),
        "torch": lambda: tensor @ tensor.T,
        "numpy": lambda: x @ x.T,
    }


def mixes(weights: np.ndarray, x: np.ndarray, lent: jnp.ndarray) -> dict[str, Call]:
    """All ways to P X. In place: onto a base that is there (ours), into an array that is there (theirs)."""
    p, tensor, place = jnp.asarray(weights), torch.from_numpy(x), np.zeros_like(x)
    weights_tensor, place_tensor = torch.from_numpy(weights), torch.zeros(x.shape)
    held = {"base": jnp.zeros(x.shape).block_until_ready()}

    def onto() -> jnp.ndarray:
        held["base"] = mix(p, lent, base=held["base"])
        return held["base"]

    return {
        "ours onto base": onto,
        "ours": lambda: mix(p, lent),
        "ours bf16": lambda: mix(p, lent, precision="bf16"),
        "torch": lambda: weights_tensor @ tensor,
        "torch out=": lambda: torch.matmul(weights_tensor, tensor, out=place_tensor),
        "numpy": lambda: weights @ x,
        "numpy out=": lambda: np.matmul(weights, x, out=place),
    }


def pair_loops(x: np.ndarray) -> dict[str, Call]:
    """The way FedAMP and pFedGraph implementations go: one pair of clients after the other."""
    tensor, rows = torch.from_numpy(x), min(PAIR_ROWS, len(x))

    def distances() -> list[float]:
        return [float(torch.norm(tensor[i] - tensor[j]) ** 2) for i in range(rows) for j in range(len(x))]

    def cosines() -> list[float]:
        similarity = torch.nn.functional.cosine_similarity
        return [float(similarity(tensor[i], tensor[j], dim=0)) for i in range(rows) for j in range(len(x))]

    return {"pairs: torch distance (FedAMP)": distances, "pairs: torch cosine (pFedGraph)": cosines}


def gram_error(result: object, x: np.ndarray) -> float:
    """Largest error of the first and last rows' products against float64, relative to the row norms."""
    chosen = sorted({*range(min(6, len(x))), *range(max(len(x) - 6, 0), len(x))})
    exact = reference.gram(x[chosen])
    norms = np.sqrt(exact.diagonal())
    found = np.asarray(result, np.float64)[np.ix_(chosen, chosen)]
    return float(np.max(np.abs(found - exact) / np.outer(norms, norms)))


def mix_error(result: object, weights: np.ndarray, x: np.ndarray) -> float:
    """Largest error in the first and last columns against float64, relative to their largest entry."""
    columns = np.r_[0 : min(50, x.shape[1]), max(x.shape[1] - 50, 0) : x.shape[1]]
    exact = reference.mix(weights, x[:, columns])
    return float(np.abs(np.asarray(result, np.float64)[:, columns] - exact).max() / np.abs(exact).max())
