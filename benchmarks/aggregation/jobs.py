"""What a server does in a round: FedBip-L by layout, `Aggregator.update` as a whole, and a call on nothing.

The counterpart is the formula in a few lines of torch, range by range, without what the server does beside it
(masks, broken vectors, bounds, records).
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import torch
from fedpl_kernels import cosine, gram, gram_blocks, mix, mix_blocks, weights

from fedpl.config import Config
from fedpl.records.layout import AdapterLayout
from fedpl.server.state import TaskVectors

from .contestants import draw
from .grid import LOOSE
from .limits import Limits
from .timing import Timing, interleaved

Ranges = tuple[tuple[int, int], ...]
PRESETS = ("local", "fedavg", "fedbip", "fedbip_l", "fedbip_g", "pfedgraph", "flexlora")
# MiniLM of the default job: rank 8 beside query and value of six layers, and the head.
MINILM = {
    f"encoder.layer.{layer}.{module}.lora_{factor}.weight": (8, 384) if factor == "A" else (384, 8)
    for layer in range(6)
    for module in ("query", "value")
    for factor in "AB"
} | {"head.weight": (2, 384), "head.bias": (2,)}
DEFAULT = AdapterLayout.of(MINILM, scale=2.0)
_TINY = (4, 16)


def llama(hidden: int, mlp: int, keys: int, blocks: int, rank: int = 16) -> Ranges:
    """Ranges of a Llama-like adapter, block by block: A and B of seven matrices each; and a head."""
    sides: Ranges = ((hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden))
    sides += ((hidden, mlp), (hidden, mlp), (mlp, hidden))
    size = sum(rank * (i + o) for i, o in sides)
    edges = [size * i for i in range(blocks + 1)]
    return (*pairwise(edges), (edges[-1], edges[-1] + 2 * (hidden + 1)))


LAYOUTS: dict[str, tuple[int, Ranges]] = {
    "default job, 7 groups": (12, DEFAULT.boundaries("block")),
    "Llama of 16 blocks, 17 groups": (12, llama(2048, 8192, 512, 16)),
    "Llama of 32 blocks, 33 groups": (4, llama(4096, 11_008, 4096, 32)),
}


def by_torch(x: torch.Tensor, base: torch.Tensor, ranges: Ranges, floor: float = 0.2) -> torch.Tensor:
    """FedBip in each range: cosines, rows divided by their sums (or local), mixed onto the base in place."""
    for start, stop in ranges:
        part = x[:, start:stop]
        products = part @ part.T
        norm = products.diagonal().rsqrt()
        cosines = products * norm[:, None] * norm
        total = cosines.sum(1, keepdim=True)
        p = torch.where(total >= floor, cosines / total, torch.eye(len(x), device=x.device))
        base[:, start:stop].addmm_(p, part)
    return base


def layouts(turns: int, limits: Limits) -> list[dict]:
    """FedBip-L's two passes over each layout: products of every group, and the mix onto aggregates."""
    return [_layout(name, n, ranges, turns, limits) for name, (n, ranges) in LAYOUTS.items()]


def _layout(name: str, n: int, ranges: Ranges, turns: int, limits: Limits) -> dict:
    d = ranges[-1][1]
    x = draw(n, d).lent
    tensor, held = torch.from_dlpack(x), {"base": jnp.zeros((n, d))}
    base, p = torch.zeros_like(tensor), jnp.full((len(ranges), n, n), 1 / n)
    p_tensor = torch.from_dlpack(p)

    def onto() -> jax.Array:
        held["base"] = jnp.asarray(mix_blocks(p, x, ranges, base=held["base"]))
        return held["base"]

    def torch_grams() -> list[torch.Tensor]:
        return [tensor[:, a:b] @ tensor[:, a:b].T for a, b in ranges]

    def torch_onto() -> torch.Tensor:
        for group, (a, b) in enumerate(ranges):
            base[:, a:b].addmm_(p_tensor[group], tensor[:, a:b])
        return base

    expected = np.stack([found.double().cpu().numpy() for found in torch_grams()])
    norms = np.sqrt(np.diagonal(expected, axis1=1, axis2=2))
    error = np.abs(gram_blocks(x, ranges) - expected) / norms[:, :, None] / norms[:, None, :]
    if not error.max() < LOOSE:  # wrong columns would show; torch's long chains reach 1e-4
        raise ValueError(f"{name}: products differ by {error.max():.1e} of the norms")
    ways: dict[str, Callable[[], object]] = {
        "gram ours": partial(gram_blocks, x, ranges),
        "gram torch, group by group": torch_grams,
        "gram torch, all columns at once": lambda: tensor @ tensor.T,
        "mix ours onto base": onto,
        "mix torch addmm_, group by group": torch_onto,
        "triad": limits.triad,
    }
    timings = interleaved(ways, turns)
    band = limits.moved / timings.pop("triad").median
    found = {
        way: _record(timing)
        | {"of_triad": 4.0 * n * d * (1 if way.startswith("gram") else 3) / timing.median / band}
        for way, timing in timings.items()
    }
    return {"layout": name, "n": n, "d": d, "groups": len(ranges), "ways": found}


def updates(turns: int, n: int = 12) -> dict[str, dict]:
    """`Aggregator.update` of presets on the default job's layout, and the formula by torch."""
    x = draw(n, DEFAULT.size).lent
    ways: dict[str, Callable[[], object]] = {name: _update(name, x) for name in PRESETS}
    tensor = torch.from_dlpack(x)
    base = torch.zeros_like(tensor)
    whole, blocks = ((0, DEFAULT.size),), DEFAULT.boundaries("block")
    ways["fedbip's formula, torch"] = lambda: by_torch(tensor, base, whole)
    ways["fedbip_l's formula, torch"] = lambda: by_torch(tensor, base, blocks)
    return {name: _record(timing) for name, timing in interleaved(ways, turns).items()}


def _update(preset: str, x: jax.Array) -> Callable[[], object]:
    rule, n = Config.of(preset).aggregator, len(x)
    start = np.random.default_rng(0).standard_normal(DEFAULT.size, dtype=np.float32)
    held = {"state": rule.init(jnp.asarray(start), n)}
    vectors = TaskVectors(x, jnp.ones(n, bool), jnp.ones(n, int), halves=jnp.full(n, 0.5))

    def update() -> object:
        held["state"], found = rule.update(held["state"], vectors, DEFAULT)
        return held["state"].personal, found.weights

    update()  # what a rule remembers is there from the second round on
    return update


def dispatch(turns: int) -> dict[str, dict]:
    """One call on arrays so small that nothing but the call takes time."""
    x = draw(*_TINY).lent
    tensor, host, p = torch.from_dlpack(x), np.asarray(x), jnp.eye(_TINY[0])
    products = gram(x)
    held = {"base": jnp.zeros(_TINY)}

    def onto() -> jax.Array:
        held["base"] = jnp.asarray(mix(p, x, base=held["base"]))
        return held["base"]

    ways: dict[str, Callable[[], object]] = {
        "gram": lambda: gram(x),
        "cosine": lambda: cosine(products),
        "weights.fedbip": lambda: weights.fedbip(products),
        "mix onto base": onto,
        "jax.numpy matmul": lambda: jnp.matmul(x, x.T),
        "torch matmul": lambda: tensor @ tensor.T,
    }
    if jax.default_backend() == "cpu":
        ways["numpy matmul"] = lambda: host @ host.T
    return {name: _record(timing) for name, timing in interleaved(ways, 4 * turns).items()}


def _record(timing: Timing) -> dict:
    return {"median_s": timing.median, "quartiles_s": list(timing.quartiles)}
