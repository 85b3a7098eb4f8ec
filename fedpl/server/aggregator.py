"""The server rule of personalised aggregation: compare clients, weigh them, combine their task vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.layout import AdapterLayout, Entry, Granularity, merge_ranges
from fedpl.records.messages import Halves
from fedpl.server.combine import Combine, FactorWise
from fedpl.server.receiving import Own, Receive
from fedpl.server.similarity import Cosine, Similarity
from fedpl.server.subject import Subject
from fedpl.server.weighting import FedBip, Weighting

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp

    from fedpl.server import models
    from fedpl.server import state as states
    from fedpl.server import step as steps
    from fedpl.server.state import Aggregation, ServerState, TaskVectors
else:
    jax, jnp, models = map(deferred, ("jax", "jax.numpy", "fedpl.server.models"))
    states, steps = map(deferred, ("fedpl.server.state", "fedpl.server.step"))

Kind = Literal["lora_A", "lora_B", "head"]
_ALL: tuple[Kind, ...] = ("lora_A", "lora_B", "head")


@dataclass(frozen=True)
class Aggregator:
    """θ̄ᵢ ← θ̄ᵢ + η Σₖ pᵢₖ τₖ, as choices: what is compared, how alike it is, weights, their use, what is sent.

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
        receive: What a client starts from: its own aggregate, or the best of several models (IFCA).
        share: Tensors that clients exchange; of the others each keeps its own.
        local_blocks: So many of the last transformer blocks are not exchanged either.
        shrink: Share of the whole model's weights in those of each group; 0 leaves groups independent.
        server_lr: Step size η of the server; 1 in the paper.
        server_momentum: Momentum of the server's steps.
        stale_discount: Absent clients count with their last task vectors, times this per round of age; 0
            leaves them out.
        norm_bound: A task vector longer than so many times the median length of its round (the lower one,
            of those that are not zero) is cut to that length, and its client named; null takes it as it is.
    """

    subject: Subject = Subject()
    granularity: Granularity = "model"
    similarity: Similarity = Cosine()
    weighting: Weighting = FedBip()
    combine: Combine = FactorWise()
    receive: Receive = Own()
    share: tuple[Kind, ...] = _ALL
    local_blocks: int = 0
    shrink: float = 0.0
    server_lr: float = 1.0
    server_momentum: float = 0.0
    stale_discount: float = 0.0
    norm_bound: float | None = 5.0

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        choices = (self.subject, self.similarity, self.weighting, self.receive)
        found = [line for choice in choices for line in choice.problems()]
        names = tuple(type(choice).__name__ for choice in (self.receive, self.weighting))
        shifts = self.combine.shifts_base
        checks = (
            (
                isinstance(self.similarity, self.weighting.wants),
                _refusal(self.weighting, self.similarity),
            ),
            (
                self.receive.several == self.weighting.by_choice,
                f"receive: {names[0]} does not go with {names[1]}: BestOf and SameChoice go together (IFCA)",
            ),
            (
                not self.subject.centred or type(self.similarity).products is Similarity.products,
                f"subject.centred: {type(self.similarity).__name__} does not go by inner products of heads",
            ),
            (
                not self.subject.centred or self.granularity != "tensor",
                "subject.centred: a head's weight and bias belong together; granularity must not be tensor",
            ),
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

    def halves(self, layout: AdapterLayout) -> Halves:
        """On what clients report what halves of their examples agree: on what is compared."""
        subject = self.subject.of(layout)
        columns = merge_ranges(entry for entry in self.shared(layout) if entry.kind in subject.kinds)
        return Halves(columns, subject.centred)

    def exchanged(self, layout: AdapterLayout) -> int:
        """How many parameters a client sends in a round."""
        return sum(entry.size for entry in self.shared(layout))

    def received(self, layout: AdapterLayout, clients: int) -> int:
        """How many parameters a client receives in a round.

        Args:
            layout: All tensors.
            clients: How many clients sent something.
        """
        own = self.receive.parameters(self.exchanged(layout))
        lora = sum(entry.size for entry in self.shared(layout) if entry.kind != "head")
        if self.combine.shifts_base:  # the change of the frozen weights travels as everyone's factors
            return own + clients * lora
        return own

    def one_model(self, layout: AdapterLayout) -> bool:
        """Whether all clients have one and the same aggregate at any time: it is then held once."""
        return (
            self.weighting.one_for_all
            and self.exchanged(layout) == layout.size
            and not self.combine.by_client
            and not self.server_momentum
            and self.receive.by_client == ()
        )

    def only_present(self, layout: AdapterLayout) -> bool:
        """Whether a round concerns those who take part in it alone, as the others are not looked at, not
        remembered, and keep their aggregates (or get the one that all have): an absent one costs nothing."""
        return not (
            self.uses_stale
            or self.server_momentum
            or self.subject.vectors == "averaged"
            or self.subject.average != "none"
            or self.weighting.remembers
            or self.receive.by_client is None
            or (self.weighting.one_for_all and not self.one_model(layout))
        )

    @property
    def uses_stale(self) -> bool:
        """Whether task vectors of absent clients are looked at."""
        return self.stale_discount > 0

    def init(
        self,
        reference: "Float[jax.Array, 'params']",
        clients: int,
        into: "Float[np.ndarray, 'clients params'] | None" = None,
    ) -> "ServerState":
        """State before the first round: every client's aggregate is θ₀.

        Args:
            reference: θ₀.
            clients: Number of clients.
            into: Where aggregates are kept on disk; None: in memory.
        """
        if into is not None:
            into[:] = reference
        personal: Any = jnp.tile(reference, (clients, 1)) if into is None else into
        return self.start(reference, clients)._replace(personal=personal)

    def start(self, reference: "Float[jax.Array, 'params']", clients: int) -> "ServerState":
        """The same for the rounds of a run: θ₀ is held once, see `fedpl.server.models.Models`."""
        own = self.receive.start(reference, clients)
        personal: Any = models.Models.start(reference[None], clients)
        return states.ServerState(0, personal, reference, {"receive": own} if own else {})

    def offer(self, state: "ServerState") -> "Float[jax.Array, 'models params'] | None":
        """Models among which each client takes the one of least loss; None: it receives its own aggregate."""
        return self.receive.offer(state.of("receive"))

    def settle(self, state: "ServerState", choices: "Int[np.ndarray, 'clients']") -> "ServerState":
        """The state once clients have said from which of the models they started.

        Args:
            state: State before the round.
            choices: Number of the model that each client chose; −1 for those who took no part.
        """
        picked = jnp.asarray(choices, jnp.int32)
        personal, own = self.receive.settle(state.personal, state.of("receive"), picked)
        return state._replace(personal=personal, memory={**state.memory, "receive": own})

    def update(
        self, state: "ServerState", vectors: "TaskVectors", layout: AdapterLayout
    ) -> "tuple[ServerState, Aggregation]":
        """One server step.

        The personal aggregates of the given state are a row for each client, or one for all where the rule
        has `one_model`; they are updated in place where the device allows it: do not use the old state
        afterwards. Absent clients keep theirs bit for bit, except where all clients have
        one and the same (federated averaging), which whoever comes next receives.

        Args:
            state: State after the previous round.
            vectors: This round's task vectors.
            layout: Says which columns form a group.

        Returns:
            The next state, and the similarities and weights that led to it.

        Raises:
            UserError: If the weighting gives weights that are not finite.
        """
        new, aggregation = steps.step(self, state, vectors, layout)
        if not (finite := np.isfinite(aggregation.weights)).all():
            rows = ", ".join(map(str, np.flatnonzero(~finite.all((0, 2)))[:5]))
            raise UserError(
                f"aggregator.weighting: {type(self.weighting).__name__} gave weights that are not finite in "
                f"round {new.round} (of the clients in rows {rows}); nothing is sent that is made of them"
            )
        return new, aggregation


def _refusal(weighting: Weighting, similarity: Similarity) -> str:
    """That a weighting's formula cannot take a similarity, and what it can."""
    found = type(similarity)
    line = f"similarity: {type(weighting).__name__} cannot take {found.__name__}; set it to "
    line += " or ".join(_choices(weighting.wants))
    if _ships(found):
        return line
    kinds = " or ".join(f"fedpl.server.{kind.__name__}" for kind in weighting.wants)
    return f"{line}; or derive {found.__name__} from {kinds} if its values are such"


def _choices(kinds: tuple[type[Similarity], ...]) -> list[str]:
    """What ships of these kinds. Users' own are known only where they happen to be imported."""
    found: list[str] = []
    for kind in kinds:
        below = tuple(filter(_ships, kind.__subclasses__()))
        found += _choices(below) or [f"fedpl.server.{kind.__name__}"]
    return list(dict.fromkeys(found))


def _ships(kind: type[Similarity]) -> bool:
    return kind.__module__.startswith("fedpl.")
