"""The schema of a run: what `configs/*.yaml` and the command line may set. Imports neither torch nor JAX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.data import Source, Tweets
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.server import Aggregator
from fedpl.tasks import Classification, Task
from fedpl.tracking.settings import TrackingConfig, WandbConfig
from fedpl.training.settings import ClientConfig, EvaluationConfig, PerClient

__all__ = [
    "Baseline",
    "ClientConfig",
    "Config",
    "EvaluationConfig",
    "LoraSettings",
    "ModelConfig",
    "PerClient",
    "TrackingConfig",
    "WandbConfig",
    "problems",
]

Baseline = Literal["local", "fedavg"]


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
        task: What clients learn.
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
    task: Task = Classification()
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
    found += config.task.problems()
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
