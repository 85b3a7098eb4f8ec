"""How often groups are seen where there are none, and where there are: the test by itself, many draws."""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from benchmarks.rules.measures import ari, says
from benchmarks.rules.vectors import STRUCTURES, rounds
from fedpl.randomness import derive_seed
from fedpl.server import Agreement
from fedpl.server.blocks import blocks
from fedpl.server.clusters import silhouette_clusters
from fedpl.server.expecting import expect
from fedpl.server.reports import correction, shares
from fedpl.server.similarity import CorrectedCosine
from fedpl.server.structure import answer

DRAWS = 400
FEW = 10  # of the silhouette's, which is slow
POWER = 60
LEVEL = 0.05
_EXAMPLES = 32  # of every client: what matters is that they are equal


class Seen(NamedTuple):
    """What a server has seen.

    Attributes:
        cosine: Of inner products averaged over the first rounds.
        halves: Mean of what clients told of halves of their examples, in three rounds at most.
        reports: How often they told it.
    """

    cosine: Float[np.ndarray, "n n"]
    halves: Float[np.ndarray, "n"]
    reports: int


def _seen(structure: str, n: int, size: float, kind: str, draw: int, last: int) -> Seen:
    """The first rounds of a draw."""
    rng = np.random.default_rng(derive_seed(draw, f"level {structure} {n} {size} {kind}", 0, "vectors"))
    gram, told = np.zeros((n, n)), []
    for one in islice(rounds(STRUCTURES[structure](n, size), kind, rng), last):
        gram += one.vectors @ one.vectors.T
        told.append(one.halves)
    length = np.sqrt(gram.diagonal())
    return Seen(gram / np.outer(length, length), np.mean(told[:3], 0), min(last, 3))


def tested(seen: Seen) -> np.ndarray:
    """Labels of the weighting `Groups`."""
    return answer(seen.cosine, np.full(len(seen.cosine), -1), LEVEL)


def agreement(seen: Seen) -> np.ndarray:
    """Labels of the weighting `Agreement`."""
    n, groups = len(seen.cosine), tested(seen)
    error = blocks(seen.cosine, groups).noise / seen.reports
    told = seen.halves, np.full(n, _EXAMPLES), error
    factor = correction(seen.cosine, shares(*told), groups)
    signal = shares(*told, factor)
    scale = np.sqrt(np.outer(signal, signal))
    expected = expect(seen.cosine, scale, groups, factor)
    return Agreement().join(seen.cosine, scale, expected, np.full(n, -1))


def silhouette(seen: Seen) -> np.ndarray:
    """Labels of `fedbip_g`: corrected cosines, best silhouette above 0.2."""
    everyone = np.ones(len(seen.cosine), bool)
    corrected = CorrectedCosine()(jnp.asarray(seen.cosine, jnp.float32)[None], jnp.asarray(everyone))
    return silhouette_clusters(np.asarray(corrected[0], np.float64), everyone, 8, "average", 0.2)


RULES: dict[str, Callable[[Seen], np.ndarray]] = {
    rule.__name__: rule for rule in (tested, agreement, silhouette)
}


def _draws(rules: Sequence[str], draws: int, slow: bool) -> dict[str, int]:
    """How many draws of each rule, of the slow one where it is wanted."""
    return {name: FEW if name == "silhouette" else draws for name in rules if slow or name != "silhouette"}


def levels(n_clients: Sequence[int], rules: Sequence[str]) -> list[dict[str, Any]]:
    """Shares of answers on vectors without groups, after one round and after five."""
    found = []
    for structure in ("none", "one group", "one group, unequal noise", "common and individual"):
        for kind in ("head", "adapter"):
            for n in n_clients:
                for last in (1, 5):
                    slow = last == 5 and n == 12
                    for name, draws in _draws(rules, DRAWS if n <= 12 else DRAWS // 2, slow).items():
                        rule = RULES[name]
                        said = [says(rule(_seen(structure, n, 0.45, kind, i, last))) for i in range(draws)]
                        shares = {word: said.count(word) / draws for word in ("alone", "one", "groups")}
                        found.append(
                            {
                                "structure": structure,
                                "kind": kind,
                                "n": n,
                                "rounds": last,
                                "rule": name,
                                "draws": draws,
                                **shares,
                            }
                        )
    return found


def powers(rules: Sequence[str]) -> list[dict[str, Any]]:
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
                for name, draws in _draws(rules, POWER, slow=size in (0.3, 0.6)).items():
                    rule, truth = RULES[name], STRUCTURES[structure](12, size).labels
                    labels = [rule(_seen(structure, 12, size, kind, i, 5)) for i in range(draws)]
                    right = [ari(truth, own) for own in labels]
                    seen = [says(own) == "groups" for own in labels]
                    found.append(
                        {
                            "structure": structure,
                            "kind": kind,
                            "size": size,
                            "rule": name,
                            "power": float(np.mean(seen)),
                            "ari": float(np.mean(right)),
                        }
                    )
    return found
