"""Runs in the environment of another system: reads `KERNEL n d` lines, answers seconds and a sample.

Needs numpy and that system, and nothing of ours. The data are those of `contestants.vectors`.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Call = Callable[[], np.ndarray]


def flower_distances(x: np.ndarray) -> Call:
    from flwr.server.strategy.aggregate import _compute_distances

    rows = [[row] for row in x]
    return lambda: _compute_distances(rows)[:4, :4]


def flower_average(x: np.ndarray) -> Call:
    from flwr.server.strategy.aggregate import aggregate

    results = [([row], 1) for row in x]
    return lambda: aggregate(results)[0][:8]


def pfl_sum(x: np.ndarray) -> Call:
    from pfl.aggregate.base import SumAggregator
    from pfl.stats import MappedVectorStatistics

    class Plain(MappedVectorStatistics):
        """The statistics of one client, without a deep-learning framework behind."""

    def run() -> np.ndarray:
        aggregator: Any = SumAggregator()
        total: Any = None
        for row in x:
            total = aggregator.accumulate(accumulated=total, user_stats=Plain({"w": row}, weight=1.0))
        return total["w"][:8] / len(x)

    return run


def fedjax_mean(x: np.ndarray) -> Call:
    import jax.numpy as jnp
    from fedjax.core.tree_util import tree_mean

    rows = [jnp.asarray(row) for row in x]
    return lambda: np.asarray(tree_mean((row, 1.0) for row in rows)[:8])


KERNELS = {
    "flower_distances": flower_distances,
    "flower_average": flower_average,
    "pfl_sum": pfl_sum,
    "fedjax_mean": fedjax_mean,
}


def main() -> None:
    prepared: dict[tuple[str, str, str], Call] = {}
    for line in sys.stdin:
        kernel, n, d = line.split()
        if (kernel, n, d) not in prepared:
            prepared.clear()
            x = np.random.default_rng(0).standard_normal((int(n), int(d)), dtype=np.float32)
            prepared[kernel, n, d] = KERNELS[kernel](x)
        start = time.perf_counter()
        sample = np.asarray(prepared[kernel, n, d]())
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "sample": sample.tolist()}), flush=True)


if __name__ == "__main__":
    main()
