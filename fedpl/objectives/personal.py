"""Objectives of clients that keep something of their own beside what they send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from fedpl.deferred import deferred
from fedpl.objectives.objective import Objective, at_least_one, positive

if TYPE_CHECKING:
    import torch

    from fedpl.objectives import models, phases
    from fedpl.objectives import session as sessions
else:
    torch, models = map(deferred, ("torch", "fedpl.objectives.models"))
    phases, sessions = map(deferred, ("fedpl.objectives.phases", "fedpl.objectives.session"))


@dataclass(frozen=True)
class Ditto(Objective):
    """θ is trained plainly and sent; the client keeps v, pulled towards what it received (arXiv 2012.04221).

    The scored model is v, trained on the loss plus lam / 2 · ‖v − θ̄ᵢ‖²; it begins at the first θ̄ᵢ.

    Attributes:
        lam: Strength of the pull.
        epochs: Passes over the training data for v per round; null: client.epochs.
    """

    lam: float = 1.0
    epochs: int | None = None
    copies: ClassVar[int] = 4

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        theta = session.fit().theta
        received = session.received
        start, pull = session.recall("personal", received), phases.Pull(received, self.lam)
        personal = session.fit(phases.Phase("personal", start, self.epochs, penalties=(pull,))).theta
        return sessions.Outcome(theta, personal, {"personal": personal})

    def problems(self) -> Sequence[str]:
        found = at_least_one("epochs", self.epochs)
        if self.lam > 0:
            return found
        return [*found, f"client.objective.lam: must be positive, got {self.lam}; without it v is local only"]


@dataclass(frozen=True)
class APFL(Objective):
    """θ is trained plainly and sent; the client uses alpha · v + (1 − alpha) · θ (arXiv 2003.13461).

    v is trained for as long as θ, after it, by the loss of the mixture.

    Attributes:
        alpha: Share of v, at first.
        adaptive: Whether each client learns its alpha, by steps against ⟨v − θ, ∇f(mixture)⟩.
        alpha_lr: Size of these steps.
    """

    alpha: float = 0.5
    adaptive: bool = True
    alpha_lr: float = 0.1
    copies: ClassVar[int] = 5

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        theta = session.fit().theta
        share = session.recall("alpha", theta.new_full((len(theta), 1), self.alpha))
        view = phases.Mixture(theta, share, self.alpha_lr if self.adaptive else 0.0)
        personal = session.fit(
            phases.Phase("personal", session.recall("personal", session.received), view=view)
        )
        assert personal.share is not None
        mixed = view._replace(share=personal.share).point(personal.theta)
        return sessions.Outcome(theta, mixed, {"personal": personal.theta, "alpha": personal.share})

    def personal(
        self, state: "Mapping[str, torch.Tensor]", aggregate: "Float[torch.Tensor, 'params']"
    ) -> "Float[torch.Tensor, 'params'] | None":
        if "personal" not in state:
            return None
        return state["alpha"] * state["personal"] + (1 - state["alpha"]) * aggregate

    def problems(self) -> Sequence[str]:
        found = list(positive("alpha_lr", self.alpha_lr))
        if not 0 < self.alpha < 1:
            found.append(
                f"client.objective.alpha: must lie between 0 and 1, got {self.alpha}; 0 is plain training, "
                f"1 local only"
            )
        return found


@dataclass(frozen=True)
class FedALA(Objective):
    """Before it trains, a client learns how much of each received number to take (arXiv 2212.01197).

    It starts at own + W ⊙ (received − own), own being its model of its last round and W in [0, 1]; W is
    learned by plain gradient steps on part of the training data and kept. Nothing is mixed in a client's
    first round.

    Attributes:
        eta: Size of the steps of W. LoRA's numbers and gradients are small: the paper's 1 moves little here.
        portion: Of the training examples that the steps see.
        epochs: Passes over them per round.
        blocks: The last blocks of the model are mixed, the head being one; the others are taken as received.
            0: all are mixed.
    """

    eta: float = 1.0
    portion: float = 0.8
    epochs: int = 1
    blocks: int = 0
    copies: ClassVar[int] = 7

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        received = session.received
        blend = phases.Blend(session.recall("own", received), received)
        weights = session.recall("weights", received.new_ones(received.shape))
        epochs = [self.epochs if known else 0 for known in session.remembers("own")]
        mixing = phases.Phase(
            "mixing", weights, epochs, self.portion, session.top(self.blocks), view=blend, plain_lr=self.eta
        )
        weights = session.fit(mixing).theta
        theta = session.fit(phases.Phase(start=blend.point(weights))).theta
        return sessions.Outcome(theta, state={"own": theta, "weights": weights})

    def problems(self) -> Sequence[str]:
        found = [*positive("eta", self.eta), *at_least_one("epochs", self.epochs)]
        if not 0 < self.portion <= 1:
            found.append(f"client.objective.portion: must lie above 0 and at most at 1, got {self.portion}")
        if self.blocks < 0:
            found.append(f"client.objective.blocks: must not be negative, got {self.blocks}")
        return found


@dataclass(frozen=True)
class FedDPA(Objective):
    """θ is trained plainly and sent; beside it works a local adapter (NeurIPS 2024, arXiv 2403.19211).

    In every adapted layer, the head included, a text gets w · local + (1 − w) · common, the layers' answers
    being mixed, not their factors. The common adapter is the received θ̄ᵢ; w is max_share times the mean
    cosine between the text and some training texts, by the local adapter's vectors before the head.

    Attributes:
        variant: T: the local adapter is trained in each of a client's rounds but its first, beside the frozen
            common one, and kept; it begins where the client first began. F: it is θ, the common one
            fine-tuned.
        share: Of the local adapter while it is trained; T only.
        max_share: w of a text like the training texts.
        examples: Training texts to compare with.
    """

    variant: Literal["T", "F"] = "T"
    share: float = 0.5
    max_share: float = 0.5
    examples: int = 5
    copies: ClassVar[int] = 5
    in_pairs: ClassVar[bool] = True

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        received = session.received
        theta = session.fit().theta
        if self.variant == "F":
            return sessions.Outcome(theta, models.Duo(theta, received, self.max_share, self.examples))
        epochs = [None if known else 0 for known in session.remembers("personal")]
        start, second = session.recall("personal", received), phases.Beside(received, self.share)
        local = session.fit(phases.Phase("personal", start, epochs, beside=second)).theta
        return sessions.Outcome(
            theta, models.Duo(local, received, self.max_share, self.examples), {"personal": local}
        )

    def problems(self) -> Sequence[str]:
        found = list(at_least_one("examples", self.examples))
        for name, value in (("share", self.share), ("max_share", self.max_share)):
            if not 0 < value <= 1:
                found.append(f"client.objective.{name}: must lie above 0 and at most at 1, got {value}")
        return found
