"""How often groups are seen where there are none, and where there are: the test by itself, many draws."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks.rules.measures import ari, says
from benchmarks.rules.vectors import STRUCTURES, rounds
from fedpl.randomness import derive_seed
from fedpl.server.clusters import silhouette_clusters
from fedpl.server.similarity import CorrectedCosine
from fedpl.server.structure import answer

DRAWS = 400
FEW = 10  # of the silhouette's, which is slow
POWER = 60
LEVEL = 0.05


def _cosines(
    structure: str, n: int, size: float, kind: str, draw: int, last: int
) -> Float[np.ndarray, "n n"]:
    """Of inner products averaged over the first rounds."""
    rng = np.random.default_rng(derive_seed(draw, f"level {structure} {n} {size} {kind}", 0, "vectors"))
    gram = np.zeros((n, n))
    for number, one in enumerate(rounds(STRUCTURES[structure](n, size), kind, rng)):
        if number < last:
            gram += one.vectors @ one.vectors.T
    length = np.sqrt(gram.diagonal())
    return gram / np.outer(length, length)


def tested(cosine: Float[np.ndarray, "n n"]) -> np.ndarray:
    """Labels of the weighting `Groups`."""
    return answer(cosine, np.full(len(cosine), -1), LEVEL)


def silhouette(cosine: Float[np.ndarray, "n n"]) -> np.ndarray:
    """Labels of `fedbip_g`: corrected cosines, best silhouette above 0.2."""
    everyone = np.ones(len(cosine), bool)
    corrected = CorrectedCosine()(jnp.asarray(cosine, jnp.float32)[None], jnp.asarray(everyone))
    return silhouette_clusters(np.asarray(corrected[0], np.float64), everyone, 8, "average", 0.2)


def _both(draws: int, slow: bool) -> list[tuple[Callable[[Float[np.ndarray, "n n"]], np.ndarray], int]]:
    """The rules and their draws, the slow one where it is wanted."""
    return [(tested, draws), (silhouette, FEW)] if slow else [(tested, draws)]


def levels(n_clients: Sequence[int]) -> list[dict[str, Any]]:
    """Shares of answers on vectors without groups, after one round and after five."""
    found = []
    for structure in ("none", "one group", "one group, unequal noise", "common and individual"):
        for kind in ("head", "adapter"):
            for n in n_clients:
                for last in (1, 5):
                    for rule, draws in _both(DRAWS if n <= 12 else DRAWS // 2, slow=last == 5 and n == 12):
                        said = [says(rule(_cosines(structure, n, 0.45, kind, i, last))) for i in range(draws)]
                        shares = {word: said.count(word) / draws for word in ("alone", "one", "groups")}
                        found.append(
                            {
                                "structure": structure,
                                "kind": kind,
                                "n": n,
                                "rounds": last,
                                "rule": rule.__name__,
                                "draws": draws,
                                **shares,
                            }
                        )
    return found


def powers() -> list[dict[str, Any]]:
    """Share of draws in which groups are seen, and how right they are, by size of the signal."""
    found = []
    for structure in (
        "two groups",
        "two opposed",
        "three groups",
        "pairs",
        "9 : 2 : 1",
        "conventions cross domains",
    ):
        for kind in ("head", "adapter"):
            for size in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
                for rule, draws in _both(POWER, slow=size in (0.3, 0.6)):
                    truth = STRUCTURES[structure](12, size).labels
                    labels = [rule(_cosines(structure, 12, size, kind, i, 5)) for i in range(draws)]
                    right = [ari(truth, own) for own in labels]
                    seen = [says(own) == "groups" for own in labels]
                    found.append(
                        {
                            "structure": structure,
                            "kind": kind,
                            "size": size,
                            "rule": rule.__name__,
                            "power": float(np.mean(seen)),
                            "ari": float(np.mean(right)),
                        }
                    )
    return found
