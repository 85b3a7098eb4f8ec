"""Weight rows, client by client in float64, for one [n, n] matrix; see `fedpl_kernels.weights`."""

import math
from collections.abc import Callable

import numpy as np

Row = Callable[[int, list[int]], dict[int, float] | None]


def _present(similarity: np.ndarray, mask: np.ndarray | None) -> list[int]:
    return [i for i in range(len(similarity)) if similarity[i, i] > 0 and (mask is None or mask[i])]


def _fill(n: int, present: list[int], row: Row) -> np.ndarray:
    """One row at a time; who is absent, or whose row comes back as None, keeps its own."""
    result = np.eye(n)
    for i in present:
        entries = row(i, present)
        if entries is not None:
            result[i] = 0.0
            for k, value in entries.items():
                result[i, k] = value
    return result


def _share(raw: dict[int, float]) -> dict[int, float] | None:
    total = math.fsum(raw.values())
    return {k: v / total for k, v in raw.items()} if total > 0 else None


def fedbip(
    cosine: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    negatives: str = "keep",
    floor: float = 0.2,
    fallback: str = "local",
) -> np.ndarray:
    """cos_ik / Σ_j cos_ij, with the policy for negative entries and small sums."""
    policy = {"keep": lambda c: c, "clip": lambda c: max(c, 0.0), "abs": abs}[negatives]

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        raw = {k: policy(float(cosine[i, k])) for k in present}
        if math.fsum(raw.values()) >= max(floor, 1e-37):
            return _share(raw)
        if fallback == "local":
            return None
        return _share({k: 1.0 if fallback == "uniform" else abs(float(cosine[i, k])) for k in present})

    return _fill(len(cosine), _present(cosine, mask), row)


def by_size(num_examples: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """n_k / Σ n_j over the present."""
    n = len(num_examples)
    here = [k for k in range(n) if mask is None or mask[k]]
    return _fill(n, here, lambda i, present: _share({k: float(num_examples[k]) for k in present}))


def clusters(labels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """The plain average over the present of the same label."""
    here = [k for k in range(len(labels)) if mask is None or mask[k]]
    return _fill(
        len(labels), here, lambda i, present: _share({k: 1.0 for k in present if labels[k] == labels[i]})
    )


def softmax(
    similarity: np.ndarray, mask: np.ndarray | None = None, *, temperature: float = 0.1
) -> np.ndarray:
    """exp(s_ik / T) / Σ_j exp(s_ij / T)."""

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        top = max(float(similarity[i, k]) for k in present)
        return _share({k: math.exp((float(similarity[i, k]) - top) / temperature) for k in present})

    return _fill(len(similarity), _present(similarity, mask), row)


def relu(similarity: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """max(s_ik, 0) / Σ_j max(s_ij, 0)."""
    return threshold(similarity, mask, minimum=0.0)


def threshold(similarity: np.ndarray, mask: np.ndarray | None = None, *, minimum: float = 0.0) -> np.ndarray:
    """`relu` over oneself and those of similarity >= minimum."""

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        kept = [k for k in present if k == i or similarity[i, k] >= minimum]
        return _share({k: max(float(similarity[i, k]), 0.0) for k in kept})

    return _fill(len(similarity), _present(similarity, mask), row)


def top_k(similarity: np.ndarray, mask: np.ndarray | None = None, *, k: int = 3) -> np.ndarray:
    """`relu` over oneself and the k most similar others."""

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        others = sorted((j for j in present if j != i), key=lambda j: (-similarity[i, j], j))
        return _share({j: max(float(similarity[i, j]), 0.0) for j in [i, *others[:k]]})

    return _fill(len(similarity), _present(similarity, mask), row)


def fixed_self(weights: np.ndarray, self_weight: float) -> np.ndarray:
    """p_ii = self_weight, the others share the rest as before."""

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        others = _share({k: float(weights[i, k]) for k in present if k != i})
        if others is None:
            return None
        return {i: self_weight} | {k: v * (1.0 - self_weight) for k, v in others.items()}

    return _fill(len(weights), list(range(len(weights))), row)


def blend_prior(
    weights: np.ndarray, prior: np.ndarray, mask: np.ndarray | None = None, *, strength: float = 0.5
) -> np.ndarray:
    """(1 - strength) P + strength · the FedAvg row."""
    average = by_size(prior, mask)
    here = [k for k in range(len(prior)) if mask is None or mask[k]]

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        return {k: (1.0 - strength) * weights[i, k] + strength * average[i, k] for k in range(len(prior))}

    return _fill(len(prior), here, row)


def simplex_qp(
    similarity: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    prior: np.ndarray | None = None,
    strength: float = 0.8,
    saturation: float = 0.9,
) -> np.ndarray:
    """argmin -Σ p_k s_ik + strength ‖p - prior‖² on the simplex, its multiplier found by bisection."""
    sizes = np.ones(len(similarity)) if prior is None else prior

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        total = math.fsum(float(sizes[k]) for k in present)
        gain = {k: 1.0 if similarity[i, k] > saturation else float(similarity[i, k]) for k in present}
        target = {k: float(sizes[k]) / total + gain[k] / (2.0 * strength) for k in present}
        low, high = min(target.values()) - 1.0, max(target.values())
        for _ in range(200):
            level = 0.5 * (low + high)
            filled = math.fsum(max(v - level, 0.0) for v in target.values())
            low, high = (level, high) if filled > 1.0 else (low, level)
        return {k: max(v - level, 0.0) for k, v in target.items()}

    return _fill(len(similarity), _present(similarity, mask), row)


def wiener(
    gram: np.ndarray, mask: np.ndarray | None = None, *, noise: np.ndarray, floor: float = 0.2
) -> np.ndarray:
    """Rows of S (S + N)⁻¹ with S = G - N, divided by their sums; noise energies given."""
    here = _present(gram, mask)
    total = np.asarray(gram, np.float64)[np.ix_(here, here)]
    spread = np.diag(np.clip(np.asarray(noise, np.float64)[here], 0.0, np.diag(total)))
    optimum = np.linalg.solve(total.T, (total - spread).T).T

    def row(i: int, present: list[int]) -> dict[int, float] | None:
        values = optimum[present.index(i)]
        return (
            {k: v / values.sum() for k, v in zip(present, values, strict=True)}
            if values.sum() > floor
            else None
        )

    return _fill(len(gram), here, row)


def diagnostics(weights: np.ndarray) -> dict[str, np.ndarray]:
    """Row sums, Σ|p|, 1/Σp², p_ii."""
    squares = [math.fsum(float(v) ** 2 for v in row) for row in weights]
    return {
        "row_sum": np.array([math.fsum(map(float, row)) for row in weights]),
        "absolute_sum": np.array([math.fsum(abs(float(v)) for v in row) for row in weights]),
        "effective_neighbours": np.array([1.0 / s if s > 0 else 0.0 for s in squares]),
        "self_weight": np.array([float(row[i]) for i, row in enumerate(weights)]),
    }
