"""How clients fine-tune and are scored: settings. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fedpl.objectives import Objective, Plain
from fedpl.training.schedules import Schedule, Shape


@dataclass(frozen=True)
class PerClient:
    """What one client does otherwise than all.

    Attributes:
        rate: Factor on its learning rates.
        max_steps: Most steps of each of its rounds; null leaves client.max_steps alone.
    """

    rate: float = 1.0
    max_steps: int | None = None

    def problems(self, client: str) -> Sequence[str]:
        """What is wrong with the settings of a client, one line each."""
        limit = self.max_steps
        checks = (
            (self.rate > 0, f"rate: must be positive, got {self.rate}"),
            (limit is None or limit >= 1, f"max_steps: at least 1, or null, got {limit}"),
        )
        return [f"client.per_client.{client}.{what}" for holds, what in checks if not holds]


@dataclass(frozen=True)
class ClientConfig:
    """How a client fine-tunes.

    Attributes:
        objective: What clients minimise, and from where: the client side of the method.
        lr: Learning rate of the LoRA factors.
        head_lr: Learning rate of the classification head.
        schedule: How the learning rates change from step to step: constant, or falling towards 0 (linear,
            cosine).
        schedule_over: Whether they do so anew in every round (and phase), or once in all rounds of the run,
            whose number is fixed then.
        warmup: Steps in which the learning rates rise first; below 1: share of all steps.
        optimizer: adamw or sgd.
        momentum: Of sgd; 0 has none.
        weight_decay: Decoupled with adamw, added to the gradient with sgd.
        batch_size: Training examples per step.
        epochs: Passes over the client's training data per round.
        max_steps: Most steps per round (of each phase, where the objective has several); null takes all
            epochs' steps.
        per_client: Clients with a learning rate or step budget of their own, by id.
        guard: validation: when the run ends, each client chooses by its own validation data what is going to
            answer for it: its aggregate, or where that is better by more than a standard error its tuned
            model, half of both or (of a baseline `local`) the local model; it lies under best/. What clients
            send is the same. none: nobody chooses.
        mask_absent_classes: Whether a client cannot answer classes that its own training data lacks: not in
            training, not when it is scored, and not by the adapter that it is left with.
        gradient_clip: Largest norm of a step's gradient; 0 does not clip.
        model_dropout: Whether the frozen model's own dropout is active while training.
        cohort_size: Clients that go through the model together; the results do not depend on it beyond
            rounding. auto: as many as pay and fit in memory; 1: one by one, by PEFT itself.
        tokens_per_pass: Most tokens (padding included) of one forward and backward pass of a cohort; auto:
            what suits the device and fits in memory. A step of more is computed in several passes.
        prefix_cache_mb: Memory in MiB for the outputs of frozen blocks before the first adapted one, kept
            between epochs and rounds; 0 keeps none. Needs model_dropout: false.
        gradient_checkpointing: Compute adapted blocks twice instead of keeping their activations.
        compile: Translate the model by torch.compile; minutes at first, for long runs on a GPU.
    """

    objective: Objective = Plain()
    lr: float = 2e-3
    head_lr: float = 1e-2
    schedule: Shape = "constant"
    schedule_over: Literal["round", "run"] = "round"
    warmup: float = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.01
    batch_size: int = 16
    epochs: int = 2
    max_steps: int | None = None
    per_client: dict[str, PerClient] = field(default_factory=dict)
    guard: Literal["none", "validation"] = "none"
    mask_absent_classes: bool = False
    gradient_clip: float = 1.0
    model_dropout: bool = True
    cohort_size: int | Literal["auto"] = "auto"
    tokens_per_pass: int | Literal["auto"] = "auto"
    prefix_cache_mb: int = 256
    gradient_checkpointing: bool = False
    compile: bool = False

    @property
    def rates(self) -> Schedule:
        """The schedule of the learning rates."""
        return Schedule(self.schedule, self.schedule_over, self.warmup)

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each; the objective says its own."""
        size, limit, cache = self.cohort_size, self.tokens_per_pass, self.prefix_cache_mb
        together = "needs cohorts; set client.cohort_size to auto"
        checks = (
            (self.lr > 0, f"lr: must be positive, got {self.lr}"),
            (self.head_lr > 0, f"head_lr: must be positive, got {self.head_lr}"),
            (self.warmup >= 0, f"warmup: must not be negative, got {self.warmup}"),
            (self.weight_decay >= 0, f"weight_decay: must not be negative, got {self.weight_decay}"),
            (self.batch_size >= 1, f"batch_size: at least 1, got {self.batch_size}"),
            (self.epochs >= 1, f"epochs: at least 1, got {self.epochs}"),
            (self.gradient_clip >= 0, f"gradient_clip: must not be negative, got {self.gradient_clip}"),
            (0 <= self.momentum < 1, f"momentum: must lie in [0, 1), got {self.momentum}"),
            (self.max_steps is None or self.max_steps >= 1, "max_steps: at least 1, or null for all"),
            (size == "auto" or size >= 1, f"cohort_size: at least 1, or auto, got {size}"),
            (limit == "auto" or limit >= 1, f"tokens_per_pass: at least 1, or auto, got {limit}"),
            (cache >= 0, f"prefix_cache_mb: must not be negative, got {cache}"),
            (size != 1 or not self.compile, f"compile: {together}"),
            (size != 1 or not self.gradient_checkpointing, f"gradient_checkpointing: {together}"),
            (
                not (self.gradient_checkpointing and self.compile),
                "compile: does not go with gradient_checkpointing; choose one",
            ),
        )
        found = [f"client.{what}" for holds, what in checks if not holds]
        return [*found, *(what for name, own in self.per_client.items() for what in own.problems(name))]


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how clients are scored.

    Attributes:
        batch_size: Texts per forward pass.
        every: Score validation data every so many rounds (and after the last); 0: only at the end.
        clients: Who is scored then: all, or those drawn for the round; after the last round it is all. Means
            of rounds are over those who are scored.
    """

    batch_size: int = 64
    every: int = 1
    clients: Literal["all", "drawn"] = "all"

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        checks = (
            (self.batch_size >= 1, f"batch_size: at least 1, got {self.batch_size}"),
            (self.every >= 0, f"every: must not be negative, got {self.every}"),
        )
        return [f"evaluation.{what}" for holds, what in checks if not holds]
