"""A rule on one population: what it says of groups, and how near its updates come to the true ones."""

import time
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score

from benchmarks.rules.vectors import STRUCTURES, rounds
from fedpl.randomness import derive_seed
from fedpl.records.layout import AdapterLayout
from fedpl.server import (
    Aggregator,
    Agreement,
    Bipartition,
    Clusters,
    CorrectedCosine,
    FactorWise,
    Groups,
    InnerProduct,
    Local,
    SimplexQp,
    Subject,
    TrueGroups,
    Uniform,
    Wiener,
)
from fedpl.server.state import TaskVectors

PRODUCTS = Subject(average="products")
RULES: dict[str, Aggregator] = {
    "local only": Aggregator(weighting=Local()),
    "average": Aggregator(weighting=Uniform()),
    "true groups": Aggregator(weighting=TrueGroups()),
    "FedBip": Aggregator(),
    "fedbip_w": Aggregator(PRODUCTS, similarity=InnerProduct(), weighting=Wiener()),
    "silhouette": Aggregator(
        PRODUCTS, similarity=CorrectedCosine(), weighting=Clusters(keep=False, min_silhouette=0.2)
    ),
    "groups": Aggregator(PRODUCTS, weighting=Groups()),
    "agreement": Aggregator(PRODUCTS, weighting=Agreement()),
    "pFedGraph": Aggregator(Subject("cumulative"), weighting=SimplexQp(), combine=FactorWise(mixes="models")),
    "CFL": Aggregator(weighting=Bipartition()),
    "clusters": Aggregator(
        Subject("cumulative"),
        weighting=Clusters(max_clusters=4, warmup=2),
        combine=FactorWise(mixes="models"),
    ),
}
HARM = 0.95  # share of its own vector's cosine with the truth, below which a client is harmed


def run(structure: str, n: int, size: float, kind: str, rule: str, draw: int) -> dict[str, Any]:
    """One run of a rule: its labels after the first and last round, and errors of the updates of all rounds.

    Args:
        structure: Of `STRUCTURES`.
        n: Clients.
        size: Length of a group's direction, where a client's noise has length 1.
        kind: head or adapter.
        rule: Of `RULES`.
        draw: Number of the random draw, the same for all rules.
    """
    truth = STRUCTURES[structure](n, size)
    rng = np.random.default_rng(derive_seed(draw, f"{structure} {n} {size} {kind}", 0, "vectors"))
    names = tuple(str(label) for label in truth.labels)
    state, errors, towards, seen, seconds = None, [], [], [], 0.0
    told: list[np.ndarray] = []
    for one in rounds(truth, kind, rng):
        width = one.vectors.shape[1]
        layout = AdapterLayout.of({"head.weight": (1, width)}, scale=1.0)
        if state is None:
            state = RULES[rule].init(jnp.zeros(width), n)
        told = [*told, one.halves][: max(RULES[rule].weighting.halves, 1)]
        came = TaskVectors(
            jnp.asarray(one.vectors, jnp.float32),
            jnp.ones(n, bool),
            jnp.full(n, 32),
            true_groups=names,
            halves=jnp.asarray(np.mean(told, 0)),
        )
        began = time.perf_counter()
        state, found = RULES[rule].update(state, came, layout)
        weights = np.asarray(found.weights, np.float64)[0]
        seconds = time.perf_counter() - began  # of the last round: the first ones compile
        mixed, own = weights @ one.vectors, one.vectors
        errors.append(np.square(mixed - one.signal).sum(1) / np.square(own - one.signal).sum(1))
        towards.append((_cosine(mixed, one.signal), _cosine(own, one.signal)))
        seen.append(state.of("weighting").get("labels"))
    mixed, own = np.array(towards).mean(0)
    record: dict[str, Any] = {
        "error": float(np.mean(errors)),
        "cosine": float(mixed.mean()),
        "own_cosine": float(own.mean()),
        "harmed": float((mixed < HARM * own).mean()),
        "seconds": seconds,
    }
    if seen[0] is not None:
        for name, labels in (("first", seen[0]), ("last", seen[-1])):
            record[name] = {"answer": says(np.asarray(labels)), "ari": ari(truth.labels, np.asarray(labels))}
        pairs = [np.asarray(x)[:, None] == np.asarray(x) for x in seen]
        record["flicker"] = float(np.mean([(a != b).mean() for a, b in pairwise(pairs)]))
    return record


def _cosine(found: Float[np.ndarray, "n d"], truth: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
    """Cosine of each update with the client's true direction; 0 where there is none."""
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(truth, axis=1)
    return (found * truth).sum(1) / np.where(lengths > 0, lengths, 1.0)


def says(labels: Int[np.ndarray, "n"]) -> str:
    """alone, one or groups."""
    kinds = len(np.unique(labels))
    return "one" if kinds == 1 else "alone" if kinds == len(labels) else "groups"


def ari(truth: Int[np.ndarray, "n"], labels: Int[np.ndarray, "n"]) -> float:
    """Adjusted Rand index."""
    return float(adjusted_rand_score(truth, labels))
