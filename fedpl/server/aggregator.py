"""The server rule of personalised aggregation: compare task vectors, weigh them, mix them per client."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpl.layout import AdapterLayout, Granularity
from fedpl.server.similarity import Cosine, Similarity
from fedpl.server.weighting import FedBip, Weighting

if TYPE_CHECKING:
    from jax import Array

    from fedpl.server.state import Aggregation, ServerState, TaskVectors


@dataclass(frozen=True)
class Aggregator:
    """θ̄ᵢ ← θ̄ᵢ + η Σₖ pᵢₖ τₖ with p = weighting(similarity(τ)), for each block of columns by itself.

    FedBip (arXiv 2509.12697) is cosine similarity with `FedBip` weights over the whole model; FedBip-L is
    the same per transformer block; local-only training and federated averaging are other weightings.

    Attributes:
        granularity: What is compared and mixed as one: the whole model (FedBip), each transformer block
            (FedBip-L; the head is a block), or each tensor.
        similarity: How alike two task vectors are.
        weighting: From similarities to mixing weights.
        server_lr: Step size η of the server; 1 in the paper.
    """

    granularity: Granularity = "model"
    similarity: Similarity = Cosine()
    weighting: Weighting = FedBip()
    server_lr: float = 1.0

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        found = list(self.weighting.problems())
        if self.server_lr <= 0:
            found.append(f"aggregator.server_lr: must be positive, got {self.server_lr}")
        return found

    def exchanged(self, layout: AdapterLayout) -> int:
        """How many of an adapter's parameters a client sends, and as many it receives."""
        return layout.size

    def init(self, reference: "Array", clients: int) -> "ServerState":
        """State before the first round: every client's aggregate is θ₀.

        Args:
            reference: θ₀, shape [params].
            clients: Number of clients.
        """
        import jax.numpy as jnp

        from fedpl.server.state import ServerState

        return ServerState(0, jnp.tile(reference, (clients, 1)), reference)

    def update(
        self, state: "ServerState", vectors: "TaskVectors", layout: AdapterLayout
    ) -> "tuple[ServerState, Aggregation]":
        """One server step.

        The personal aggregates of the given state are updated in place where the device allows it: do not
        use the old state afterwards.

        Args:
            state: State after the previous round.
            vectors: This round's task vectors.
            layout: Says which columns form a block.

        Returns:
            The next state, and the similarities and weights that led to it.
        """
        import jax.numpy as jnp
        from fedpl_kernels import mix_blocks

        from fedpl.server.state import Aggregation

        boundaries = layout.boundaries(self.granularity)
        # A vector that is not finite counts as absent: it moves nobody, and its client stays where it is.
        present = vectors.mask & jnp.isfinite(vectors.matrix.sum(1))
        similarity = self.similarity(vectors.matrix, boundaries, present)
        weights = self.weighting(similarity, present, vectors.num_examples)
        steps = self.server_lr * weights * present[:, None]
        personal: Any = mix_blocks(steps, vectors.matrix, boundaries, present, base=state.personal)
        next_state = state._replace(round=state.round + 1, personal=personal)
        return next_state, Aggregation(similarity, weights)
