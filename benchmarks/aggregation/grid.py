"""One case of the grid: every contestant in turn, answers checked, rates against the machine's limits."""

from collections.abc import Callable

import numpy as np

from .contestants import Call, Vectors, draw, gram_error, grams, mix_error, mixes, operations, traffic
from .limits import Limits, mode_of
from .peers import Peer
from .timing import interleaved

# Largest relative error of an answer of ours that is timed; a wrong answer stops the benchmark.
ALLOWED = {"highest": 1e-5, "tf32": 2e-3, "bf16": 2e-2}
LOOSE = 2e-2  # others, who add a million products one after the other
LOOP_LIMIT = 3e9  # n² d above which Flower's pair loop is left out: it takes minutes


def run_case(
    n: int, d: int, turns: int, limits: Limits, peers: list[Peer], failed: dict[str, str]
) -> list[dict]:
    """Records of the Gram and of the mix; the limits are timed in the same turns."""
    data = draw(n, d)
    weights = np.random.default_rng(1).dirichlet(np.ones(n), n).astype(np.float32)
    records = []
    for operation, make in (("gram", lambda: grams(data)), ("mix", lambda: mixes(weights, data))):
        ways = make()
        theirs, counts = peer_calls(operation, n, d, peers, data.host, failed)
        both = {"product": limits.product, "triad": limits.triad}
        timings = interleaved(ways | theirs | both, turns)
        ways.clear()  # and with it the array that was mixed into again and again
        errors = check(operation, make, weights, data)
        peak, band = limits.rates(timings.pop("product"), timings.pop("triad"))
        for name, timing in timings.items():
            done = counts.get(name, operations(operation, name, n, d))
            moved = traffic(operation, name, n, d)
            records.append(
                {"operation": operation, "n": n, "d": d, "name": name}
                | timing.record()
                | {
                    "error": errors.get(name),
                    "operations_per_s": counts.get(name, 2.0 * n * n * d) / timing.median,
                    "flops_per_s": done / timing.median,
                    "of_peak": done / timing.median / peak,
                    "bytes_per_s": moved / timing.median,
                    "of_triad": moved / timing.median / band,
                }
            )
    return records


def check(
    operation: str, make: Callable[[], dict[str, Call]], weights: np.ndarray, data: Vectors
) -> dict[str, float]:
    """The error of every contestant; ValueError for a wrong answer, so that no time of it is reported."""
    errors, x = {}, data.lent
    for name in list(make()):
        result = make()[name]()  # anew, as what is mixed onto a base stays there
        errors[name] = gram_error(result, x) if operation == "gram" else mix_error(result, weights, x)
        allowed = ALLOWED[mode_of(name)] if name.startswith("ours") else LOOSE
        if not errors[name] <= allowed:
            raise ValueError(f"{operation}, {name}: error {errors[name]:.1e}, expected at most {allowed:.0e}")
    return errors


def peer_calls(
    operation: str, n: int, d: int, peers: list[Peer], x: np.ndarray | None, failed: dict[str, str]
) -> tuple[dict, dict[str, float]]:
    """Calls of the other systems that can take part, and the operations of each: 2 n d for one average."""
    calls: dict = {}
    counts: dict[str, float] = {}
    if x is None:
        return calls, counts
    for peer in peers:
        for kernel in peer.kernels:
            pairwise = kernel == "flower_distances"
            if kernel in failed or pairwise != (operation == "gram") or (pairwise and n * n * d > LOOP_LIMIT):
                continue
            try:
                peer.call(kernel, n, d)
            except RuntimeError as error:
                failed[kernel] = str(error)
                continue
            if pairwise:
                few = x[:4].astype(np.float64)
                expected = ((few[:, None] - few[None]) ** 2).sum(-1)
            else:
                expected = x[:, :8].astype(np.float64).mean(0)
            np.testing.assert_allclose(peer.sample, expected, rtol=1e-4, atol=1e-4)
            calls[kernel] = lambda peer=peer, kernel=kernel: peer.call(kernel, n, d)
            counts[kernel] = 2.0 * n * n * d if pairwise else 2.0 * n * d
    return calls, counts
