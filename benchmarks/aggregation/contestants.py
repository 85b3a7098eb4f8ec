"""Who takes part, in this process: ours in each mode, torch, NumPy (on a CPU), and pair-by-pair loops."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from fedpl_kernels import _blas, _host, gram, mix, reference
from fedpl_kernels._gram import TILE, tile_edges
from fedpl_kernels._precision import Precision
from jax import lax
from scipy.linalg.blas import sgemm, ssyrk

from .timing import on_gpu

Call = Callable[[], object]
PAIR_ROWS = 4  # the loops are timed on so many rows against all, and scaled
_DRAWN_COLUMNS = 1 << 14


class Vectors(NamedTuple):
    """The task vectors of a case where JAX works, and in host memory when that is a CPU's."""

    lent: jax.Array
    host: np.ndarray | None


def vectors(n: int, d: int) -> np.ndarray:
    """The task vectors of a case in host memory; every process draws the same."""
    return np.random.default_rng(0).standard_normal((n, d), dtype=np.float32)


def draw(n: int, d: int) -> Vectors:
    """The task vectors of a case: `vectors` on a CPU; on a GPU drawn there, as they may outgrow the host."""
    if on_gpu():
        return Vectors(_drawn(n, d).block_until_ready(), None)
    x = vectors(n, d)
    return Vectors(jnp.asarray(x), x)


@partial(jax.jit, static_argnums=(0, 1))
def _drawn(n: int, d: int) -> jax.Array:
    width = min(d, _DRAWN_COLUMNS)

    def fill(k: jax.Array, x: jax.Array) -> jax.Array:
        new = jax.random.normal(jax.random.fold_in(jax.random.key(0), k), (n, width))
        return lax.dynamic_update_slice(x, new, (0, jnp.minimum(k * width, d - width)))

    return lax.fori_loop(0, -(-d // width), fill, jnp.zeros((n, d)))


def grams(data: Vectors) -> dict[str, Call]:
    """All ways to the Gram matrix."""
    x, half = data.lent, data.lent.astype(jnp.bfloat16)
    tensor, half_tensor = torch.from_dlpack(x), torch.from_dlpack(half)
    place = torch.empty((len(tensor), len(tensor)), device=tensor.device)
    ways: dict[str, Call] = {
        "ours highest": lambda: gram(x),
        "ours tf32": lambda: gram(x, precision="tf32"),
        "ours bf16": lambda: gram(x, precision="bf16"),
        "ours stored bf16": lambda: gram(half),
        "torch": lambda: tensor @ tensor.T,
        "torch mm out=": lambda: torch.mm(tensor, tensor.T, out=place),
        "torch bf16": lambda: half_tensor @ half_tensor.T,
    }
    host = data.host
    if host is None:
        return ways | {"torch tf32": lambda: _with_tf32(lambda: tensor @ tensor.T)}
    return ways | {"numpy": lambda: host @ host.T, "scipy ssyrk": lambda: _symmetric(host)}


def _symmetric(x: np.ndarray) -> np.ndarray:
    """X Xᵀ by the BLAS routine for it, which fills one triangle; mirrored, as ours is."""
    half = ssyrk(1.0, x.T, trans=1)
    return half + np.triu(half, 1).T


def operations(operation: str, name: str, n: int, d: int) -> float:
    """Multiplications and additions that a contestant does, which is not what a plain product would do."""
    by_blas = not on_gpu() and name == "ours highest" and _host.serves(n, "highest")
    # NumPy calls it for X Xᵀ.
    if operation == "gram" and ("ssyrk" in name or name == "numpy" or (by_blas and _blas.halves(n))):
        return float(n) * (n + 1) * d
    if operation == "gram" and name.startswith("ours") and not by_blas:
        sizes = np.diff(tile_edges(n, TILE["gpu" if on_gpu() else "cpu"])).astype(float)
        return float((sizes.sum() ** 2 + (sizes**2).sum()) * d)
    return 2.0 * n * n * d


def traffic(operation: str, name: str, n: int, d: int) -> float:
    """Bytes that have to move: X once; a result is written, and a base read too."""
    onto = any(word in name for word in ("onto", "addmm_", "beta 1"))
    arrays = 1 if operation == "gram" else 3 if onto else 2
    return 4.0 * n * d * arrays


def mixes(weights: np.ndarray, data: Vectors) -> dict[str, Call]:
    """All ways to P X. In place: onto a base that is there (ours), into an array that is there (theirs).

    On a GPU in place only: with another result of that size the largest case would not fit.
    """
    p, x = jnp.asarray(weights), data.lent
    weights_tensor, tensor = torch.from_dlpack(p), torch.from_dlpack(x)
    place_tensor, base_tensor = torch.zeros_like(tensor), torch.zeros_like(tensor)
    held = {"base": jnp.zeros(x.shape).block_until_ready()}

    def onto(precision: Precision = "highest", finite: bool = False) -> jnp.ndarray:
        held["base"] = jnp.asarray(mix(p, x, base=held["base"], precision=precision, finite=finite))
        return held["base"]

    ways: dict[str, Call] = {
        "ours onto base": onto,
        "ours onto base, known finite": lambda: onto(finite=True),
        "torch out=": lambda: torch.mm(weights_tensor, tensor, out=place_tensor),
        "torch addmm_": lambda: base_tensor.addmm_(weights_tensor, tensor),
    }
    host = data.host
    if host is None:
        return ways | {
            "ours onto base tf32": lambda: onto("tf32"),
            "ours onto base bf16": lambda: onto("bf16"),
            "torch out= tf32": lambda: _with_tf32(
                lambda: torch.matmul(weights_tensor, tensor, out=place_tensor)
            ),
        }
    place, base = np.zeros_like(host), np.zeros_like(host)
    return ways | {
        "ours": lambda: mix(p, x),
        "ours bf16": lambda: mix(p, x, precision="bf16"),
        "torch": lambda: weights_tensor @ tensor,
        "numpy": lambda: weights @ host,
        "numpy out=": lambda: np.matmul(weights, host, out=place),
        # In the columns' order of Fortran all of them are transposed: nothing is copied.
        "scipy sgemm, beta 1": lambda: sgemm(1.0, host.T, weights.T, 1.0, base.T, overwrite_c=1).T,
    }


def _with_tf32(call: Callable[[], torch.Tensor]) -> torch.Tensor:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return call()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def pair_loops(x: jax.Array) -> dict[str, Call]:
    """The way FedAMP and pFedGraph implementations go: one pair of clients after the other."""
    tensor, rows = torch.from_dlpack(x), min(PAIR_ROWS, len(x))

    def distances() -> list[float]:
        return [float(torch.norm(tensor[i] - tensor[j]) ** 2) for i in range(rows) for j in range(len(x))]

    def cosines() -> list[float]:
        similarity = torch.nn.functional.cosine_similarity
        return [float(similarity(tensor[i], tensor[j], dim=0)) for i in range(rows) for j in range(len(x))]

    return {"pairs: torch distance (FedAMP)": distances, "pairs: torch cosine (pFedGraph)": cosines}


def gram_error(result: object, x: jax.Array) -> float:
    """Largest error of the first and last rows' products against float64, relative to the row norms."""
    chosen = np.array(sorted({*range(min(6, len(x))), *range(max(len(x) - 6, 0), len(x))}))
    exact = reference.gram(np.asarray(x[chosen]))
    norms = np.sqrt(exact.diagonal())
    found = _numbers(result)[np.ix_(chosen, chosen)]
    return float(np.max(np.abs(found - exact) / np.outer(norms, norms)))


def mix_error(result: object, weights: np.ndarray, x: jax.Array) -> float:
    """Largest error in the first and last columns against float64, relative to their largest entry."""
    columns = np.r_[0 : min(50, x.shape[1]), max(x.shape[1] - 50, 0) : x.shape[1]]
    exact = reference.mix(weights, np.asarray(x[:, columns]))
    found = _numbers(result[:, columns])  # type: ignore[index]
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def _numbers(result: object) -> np.ndarray:
    return np.asarray(result.double().cpu() if isinstance(result, torch.Tensor) else result, np.float64)
