"""Weightings that find groups of clients and average inside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.server.similarity import Bounded, Similarity
from fedpl.server.weighting import Memory, Weighting

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
    from fedpl_kernels import weights

    from fedpl.server import clusters
    from fedpl.server.evidence import Evidence
else:
    jax, jnp, weights = map(deferred, ("jax", "jax.numpy", "fedpl_kernels.weights"))
    clusters = deferred("fedpl.server.clusters")


class _Grouping(Weighting):
    """Averages, by training examples, inside groups whose labels are found round by round."""

    @property
    def on_host(self) -> bool:
        return True

    def __call__(
        self,
        similarity: "Float[jax.Array, 'groups n n']",
        mask: "Bool[jax.Array, 'n']",
        num_examples: "Int[jax.Array, 'n']",
    ) -> "Float[jax.Array, 'groups n n']":
        raise TypeError(f"{type(self).__name__} remembers its groups over the rounds: call weigh")

    def _average(
        self, labels: "Int[np.ndarray | jax.Array, 'n']", evidence: "Evidence"
    ) -> "Float[jax.Array, 'groups n n']":
        found = weights.clusters(jnp.asarray(labels), evidence.mask, num_examples=evidence.num_examples)
        return jnp.broadcast_to(found, evidence.similarity.shape)


@dataclass(frozen=True)
class Clusters(_Grouping):
    """Agglomerative clusters, their number chosen by the silhouette, found once and kept.

    As FedLEASE (NeurIPS 2025) clusters clients by the cosines of their factors B; unlike its code this may
    also find that all clients are one cluster. Clients that come later join the most similar cluster.

    Attributes:
        max_clusters: Most clusters.
        linkage: Which distance two clusters have.
        min_silhouette: With a smaller best silhouette all clients are one cluster.
        warmup: Rounds until clusters are formed; average the similarity over them by `Subject.average`.
        before: What clients receive until then: local: their own task vector; uniform: the average.
        keep: Whether clusters stay as they were first found; else they are found anew in every round.
    """

    max_clusters: int = 8
    linkage: Literal["average", "complete", "single"] = "average"
    min_silhouette: float = 0.0
    warmup: int = 1
    before: Literal["local", "uniform"] = "local"
    keep: bool = True

    @property
    def wants(self) -> tuple[type[Similarity], ...]:
        return (Bounded,)

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        n = len(evidence.mask)
        labels = np.asarray(memory.get("labels", jnp.full(n, -1)))
        present = np.asarray(evidence.mask)
        similarity = np.asarray(evidence.mean_similarity, np.float64)
        if evidence.round + 1 < self.warmup:
            alone = np.arange(n) if self.before == "local" else np.zeros(n, int)
            return self._average(alone, evidence), {}
        if not self.keep or (labels < 0).all():
            labels = clusters.silhouette_clusters(
                similarity, present, self.max_clusters, self.linkage, self.min_silhouette
            )
        else:
            labels = clusters.join(labels, similarity, present)
        alone = np.where(labels < 0, n + np.arange(n), labels)
        return self._average(alone, evidence), {"labels": jnp.asarray(labels)}

    def problems(self) -> Sequence[str]:
        checks = {"max_clusters": self.max_clusters, "warmup": self.warmup}
        return [
            f"aggregator.weighting.{name}: at least 1, got {value}"
            for name, value in checks.items()
            if value < 1
        ]


@dataclass(frozen=True)
class Bipartition(_Grouping):
    """Clustered federated learning: a cluster whose mean update vanishes though its clients still move is
    split in two by complete linkage on cosines (Sattler et al., IEEE TNNLS 2021).

    Attributes:
        mean_below: ε₁: split only if the mean update is shorter than this, as a share of the longest
            update of the first round. (The published constants are absolute and fit one network only.)
        longest_above: ε₂: and if the longest update in the cluster is longer than this, likewise.
        min_size: Smallest cluster that is split.
        warmup: Rounds before the first split.
    """

    mean_below: float = 0.5
    longest_above: float = 0.1
    min_size: int = 3
    warmup: int = 1
    by_products: ClassVar[bool] = True

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        n = len(evidence.mask)
        present = np.asarray(evidence.mask)
        gram = np.asarray(evidence.whole_products, np.float64)
        labels = np.asarray(memory.get("labels", jnp.zeros(n, jnp.int32)))
        longest = float(np.sqrt(max(gram.diagonal()[present], default=0.0)))
        scale = float(memory.get("scale", jnp.asarray(longest)))
        if evidence.round + 1 >= self.warmup:
            for label in np.unique(labels[present]):
                members = np.flatnonzero((labels == label) & present)
                inner = gram[np.ix_(members, members)]
                mean = np.sqrt(max(inner.mean(), 0.0))
                moving = np.sqrt(inner.diagonal().max()) > self.longest_above * scale
                if len(members) >= self.min_size and moving and mean < self.mean_below * scale:
                    second = members[clusters.bipartition(inner) == 1]
                    labels = labels.copy()
                    labels[second] = labels.max() + 1
        new = {"labels": jnp.asarray(labels), "scale": jnp.asarray(scale)}
        return self._average(labels, evidence), new

    def problems(self) -> Sequence[str]:
        return (
            () if self.min_size >= 2 else [f"aggregator.weighting.min_size: at least 2, got {self.min_size}"]
        )


@dataclass(frozen=True)
class SameChoice(_Grouping):
    """The average among those who chose the same of several models (IFCA). Goes with the receive `BestOf`."""

    @property
    def by_choice(self) -> bool:
        return True

    @property
    def on_host(self) -> bool:
        return False

    @property
    def remembers(self) -> bool:
        return False

    def weigh(self, evidence: "Evidence", memory: Memory) -> "tuple[Float[jax.Array, 'groups n n'], Memory]":
        if evidence.choices is None:
            raise TypeError("SameChoice needs clients that chose among several models")
        return self._average(evidence.choices, evidence), {}
