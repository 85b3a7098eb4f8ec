"""Objectives of clients that train the one model they send."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fedpl.deferred import deferred
from fedpl.objectives.objective import Objective, at_least_one, positive

if TYPE_CHECKING:
    from fedpl.objectives import phases
    from fedpl.objectives import session as sessions
else:
    phases, sessions = map(deferred, ("fedpl.objectives.phases", "fedpl.objectives.session"))

Kind = Literal["lora_A", "lora_B", "head"]
Start = Literal["received", "own"]
_ALL: tuple[Kind, ...] = ("lora_A", "lora_B", "head")


@dataclass(frozen=True)
class Plain(Objective):
    """The client's own training loss, from what it received (FedAvg, FedIT, FedBip).

    Attributes:
        train: Kinds of tensors that learn. The others stay bit for bit what was received: no step, no weight
            decay, no part in the clipped norm. [lora_B, head] is FFA-LoRA (arXiv 2403.12313).
    """

    train: tuple[Kind, ...] = _ALL

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        return sessions.Outcome(session.fit(phases.Phase(train=session.tensors(self.train))).theta)

    def problems(self) -> Sequence[str]:
        return _train_problems(self.train)


@dataclass(frozen=True)
class FedProx(Objective):
    """Training loss plus mu / 2 · ‖θ − θ̄ᵢ‖² (arXiv 1812.06127); with start: own, the client's step of FedAMP.

    Attributes:
        mu: Strength of the pull towards what was received.
        start: received, or own: the client's own model of its last round (FedAMP, arXiv 2007.03797), whose
            penalty is mu = lambda / alpha_k in the paper's letters.
        train: Kinds of tensors that learn.
    """

    mu: float = 0.01
    start: Start = "received"
    train: tuple[Kind, ...] = _ALL
    copies: ClassVar[int] = 3

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        pull = phases.Pull(session.received, self.mu)
        return _from(self.start, session, phases.Phase(train=session.tensors(self.train), penalties=(pull,)))

    def problems(self) -> Sequence[str]:
        found = list(_train_problems(self.train))
        if not self.mu > 0:
            found.append(
                f"client.objective.mu: must be positive, got {self.mu}; without the pull it is plain "
                f"training: use fedpl.objectives.Plain"
            )
        return found


@dataclass(frozen=True)
class PFedGraph(Objective):
    """Training loss plus lam · (1 − cos(θ, θ̄ᵢ)), which draws θ towards the direction received (ICML 2023).

    Attributes:
        lam: Strength.
        start: received, or own: the client's own model of its last round.
    """

    lam: float = 0.01
    start: Start = "received"
    copies: ClassVar[int] = 3

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        return _from(self.start, session, phases.Phase(penalties=(phases.Align(session.received, self.lam),)))

    def problems(self) -> Sequence[str]:
        return positive("lam", self.lam)


@dataclass(frozen=True)
class FedRep(Objective):
    """First the head with the adapter frozen, then the adapter with the head frozen (arXiv 2102.07078).

    The head is meant to stay the client's own, which is the server's part of the method.

    Attributes:
        head_epochs: Passes over the training data for the head; the adapter gets client.epochs.
    """

    head_epochs: int = 1
    copies: ClassVar[int] = 1

    def __call__(self, session: "sessions.Session") -> "sessions.Outcome":
        head = session.fit(phases.Phase("head", epochs=self.head_epochs, train=session.tensors(("head",))))
        base = phases.Phase(start=head.theta, train=session.tensors(("lora_A", "lora_B")))
        return sessions.Outcome(session.fit(base).theta)

    def problems(self) -> Sequence[str]:
        return at_least_one("head_epochs", self.head_epochs)


def _from(start: Start, session: "sessions.Session", phase: "phases.Phase") -> "sessions.Outcome":
    """A phase begun at what was received, or at the client's own model, which is then remembered."""
    if start == "received":
        return sessions.Outcome(session.fit(phase).theta)
    theta = session.fit(phase._replace(start=session.recall("own", session.received))).theta
    return sessions.Outcome(theta, state={"own": theta})


def _train_problems(kinds: Sequence[str]) -> Sequence[str]:
    if kinds and len(set(kinds)) == len(kinds):
        return ()
    return [f"client.objective.train: name at least one of {', '.join(_ALL)}, each once"]
