"""What a run records and shows: settings."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases. What is not set here comes from W&B's own variables: WANDB_ENTITY, WANDB_DIR, ...

    Attributes:
        mode: auto: the environment's WANDB_MODE if set, else online when logged in, else offline. Never asks.
        project: Project name; fedpl gives way to WANDB_PROJECT.
        name: Run name; null takes WANDB_NAME, else the run directory's name.
        group: Group name, for comparisons and sweeps; null takes WANDB_RUN_GROUP.
        tags: Tags of the run; none takes WANDB_TAGS.
        matrices: Similarity and weights are shown in the first and every so many rounds; 0: never;
            null: about 20 times a run, of more than 64 clients never.
        artifacts: Whether the summary and all clients' adapters are uploaded too, as an artifact of the run.
        alerts: Whether W&B sends an alert, as its user has set it up, about clients that are harmed (by more
            than two points against local-only training) or whose task vectors were not used.
    """

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "fedpl"
    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    matrices: int | None = None
    artifacts: bool = False
    alerts: bool = False


@dataclass(frozen=True)
class TrackingConfig:
    """What a run records beside metrics.jsonl and summary.json, which are always written.

    Attributes:
        wandb: Weights & Biases.
        plots: Whether to draw the pictures under ``plots/``.
        progress: Whether to show progress (a live display on a terminal, plain lines elsewhere).
        report: Whether `fedpl.fit` and `fedpl.run` write ``report.html`` when the run ends; null: with the
            pictures, of up to 64 clients.
    """

    wandb: WandbConfig = WandbConfig()
    plots: bool = True
    progress: bool = True
    report: bool | None = None
