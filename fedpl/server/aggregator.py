"""The server rule of personalised aggregation: compare clients, weigh them, combine their task vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fedpl.records.layout import AdapterLayout, Entry, Granularity
from fedpl.server.clustering import Ifca
from fedpl.server.combine import Combine, FactorWise
from fedpl.server.similarity import Cosine, Similarity
from fedpl.server.subject import Subject
from fedpl.server.weighting import FedBip, Weighting

if TYPE_CHECKING:
    from jax import Array

    from fedpl.server.state import Aggregation, ServerState, TaskVectors

Kind = Literal["lora_A", "lora_B", "head"]
_ALL: tuple[Kind, ...] = ("lora_A", "lora_B", "head")


@dataclass(frozen=True)
class Aggregator:
    """θ̄ᵢ ← θ̄ᵢ + η Σₖ pᵢₖ τₖ, as four choices: what is compared, how alike it is, weights, and their use.

    FedBip (arXiv 2509.12697) is cosine similarity of the round's task vectors with `FedBip` weights over
    the whole model; FedBip-L is the same per transformer block. Other methods are other choices, see
    ``configs/method/``.

    Attributes:
        subject: What of the clients is compared.
        granularity: What is compared and mixed as one: the whole model (FedBip), each transformer block
            (FedBip-L; the head is a block), each tensor, or each kind of module (query, value, head).
        similarity: How alike two clients are.
        weighting: From similarities to mixing weights.
        combine: From weights and task vectors to new aggregates.
        share: Tensors that clients exchange; of the others each keeps its own.
        local_blocks: So many of the last transformer blocks are not exchanged either.
        shrink: Share of the whole model's weights in those of each group; 0 leaves groups independent.
        server_lr: Step size η of the server; 1 in the paper.
        server_momentum: Momentum of the server's steps.
        stale_discount: Absent clients count with their last task vectors, times this per round of age; 0
            leaves them out.
        norm_bound: A task vector longer than so many times the median length of its round is cut to that
            length; null takes it as it is.
    """

    subject: Subject = Subject()
    granularity: Granularity = "model"
    similarity: Similarity = Cosine()
    weighting: Weighting = FedBip()
    combine: Combine = FactorWise()
    share: tuple[Kind, ...] = _ALL
    local_blocks: int = 0
    shrink: float = 0.0
    server_lr: float = 1.0
    server_momentum: float = 0.0
    stale_discount: float = 0.0
    norm_bound: float | None = None

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        found = [*self.subject.problems(), *self.similarity.problems(), *self.weighting.problems()]
        shifts = self.combine.shifts_base
        checks = (
            (self.server_lr > 0, f"server_lr: must be positive, got {self.server_lr}"),
            (0 <= self.server_momentum < 1, f"server_momentum: in [0, 1), got {self.server_momentum}"),
            (0 <= self.shrink <= 1, f"shrink: must lie in [0, 1], got {self.shrink}"),
            (0 <= self.stale_discount <= 1, f"stale_discount: must lie in [0, 1], got {self.stale_discount}"),
            (
                self.norm_bound is None or self.norm_bound > 0,
                f"norm_bound: must be positive or null, got {self.norm_bound}",
            ),
            (self.local_blocks >= 0, f"local_blocks: must not be negative, got {self.local_blocks}"),
            (bool(self.share), "share: name at least one of lora_A, lora_B, head; or use Local weights"),
            (len(set(self.share)) == len(self.share), "share: name each kind of tensor once"),
            (
                not shifts or self.weighting.one_for_all,
                f"combine: {type(self.combine).__name__} changes the frozen weights of all clients and needs "
                f"one row of weights for all: Uniform, BySize or FedAwa",
            ),
            (
                not shifts or {"lora_A", "lora_B"} <= set(self.share),
                f"share: {type(self.combine).__name__} needs both LoRA factors",
            ),
            (
                not shifts or not (self.server_momentum or self.local_blocks or self.server_lr != 1),
                f"combine: {type(self.combine).__name__} goes with server_lr 1, no momentum, no local blocks",
            ),
        )
        return [*found, *(f"aggregator.{what}" for holds, what in checks if not holds)]

    def shared(self, layout: AdapterLayout) -> tuple[Entry, ...]:
        """The tensors that clients exchange."""
        blocks = [block for block in layout.blocks if block != "head"]
        own = set(blocks[max(len(blocks) - self.local_blocks, 0) :])
        return tuple(e for e in layout.entries if e.kind in self.share and e.block not in own)

    def exchanged(self, layout: AdapterLayout) -> int:
        """How many parameters a client sends in a round."""
        return sum(entry.size for entry in self.shared(layout))

    def received(self, layout: AdapterLayout, clients: int) -> int:
        """How many parameters a client receives in a round.

        Args:
            layout: All tensors.
            clients: How many clients sent something.
        """
        own = self.exchanged(layout)
        if isinstance(self.weighting, Ifca):
            return self.weighting.models * own
        lora = sum(entry.size for entry in self.shared(layout) if entry.kind != "head")
        if self.combine.shifts_base:  # the change of the frozen weights travels as everyone's factors
            return own + clients * lora
        return own

    @property
    def uses_stale(self) -> bool:
        """Whether task vectors of absent clients are looked at."""
        return self.stale_discount > 0

    def init(self, reference: "Array", clients: int) -> "ServerState":
        """State before the first round: every client's aggregate is θ₀.

        Args:
            reference: θ₀, shape [params].
            clients: Number of clients.
        """
        import jax.numpy as jnp

        from fedpl.server.state import ServerState

        state = ServerState(0, jnp.tile(reference, (clients, 1)), reference)
        if isinstance(self.weighting, Ifca):
            from fedpl.server.candidates import start

            return state._replace(memory=start(self.weighting, reference, clients))
        return state

    def candidates(self, state: "ServerState") -> "Array | None":
        """Models among which clients choose before they train, [models, params]; None where they do not."""
        return state.memory.get("ifca.models")

    def offers(self, state: "ServerState") -> "Array | None":
        return self.candidates(state)

    def settle(self, state: "ServerState", choices: "Array") -> "ServerState":
        import jax.numpy as jnp

        labels = jnp.where(choices >= 0, choices, state.memory["ifca.labels"])
        chosen = state.memory["ifca.models"][labels]
        personal = jnp.where((choices >= 0)[:, None], chosen, state.personal)
        return state._replace(personal=personal, memory={**state.memory, "ifca.labels": labels})

    def assign(self, state: "ServerState", losses: "Array") -> "ServerState":
        """Every client receives the candidate of least loss.

        Args:
            state: State before the round.
            losses: Mean training loss of every candidate on every client's data, [clients, models].
        """
        from fedpl.server.candidates import assign

        return assign(state, losses)

    def update(
        self, state: "ServerState", vectors: "TaskVectors", layout: AdapterLayout
    ) -> "tuple[ServerState, Aggregation]":
        """One server step.

        The personal aggregates of the given state are updated in place where the device allows it: do not
        use the old state afterwards. Absent clients keep theirs bit for bit, except where all clients have
        one and the same (federated averaging), which whoever comes next receives.

        Args:
            state: State after the previous round.
            vectors: This round's task vectors.
            layout: Says which columns form a group.

        Returns:
            The next state, and the similarities and weights that led to it.
        """
        from fedpl.server.step import step

        return step(self, state, vectors, layout)
