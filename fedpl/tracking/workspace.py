"""A saved view of W&B's workspace for runs of fedpl, by wandb-workspaces (the extra ``workspace``)."""

from typing import TYPE_CHECKING, Any

from fedpl.deferred import deferred
from fedpl.records.scores import Metric
from fedpl.tasks.metrics import CLASSIFICATION
from fedpl.tracking.closing import MODELS

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as panels
    import wandb_workspaces.workspaces as workspaces
else:
    panels = deferred("wandb_workspaces.reports.v2")
    workspaces = deferred("wandb_workspaces.workspaces")

_ROUND = "round"


def workspace(entity: str, project: str, metric: Metric = CLASSIFICATION[0]) -> Any:
    """The panels that runs of one metric are looked at by; its ``save()`` needs W&B's server and a login.

    Args:
        entity: W&B's user or team.
        project: As of `tracking.wandb.project`.
        metric: The task's primary one.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``.
    """
    name = metric.name

    def curve(title: str, *keys: str) -> Any:
        return panels.LinePlot(title=title, x=_ROUND, y=list(keys))

    def bars(title: str, *keys: str) -> Any:
        return panels.BarPlot(title=title, metrics=list(keys))

    sections = {
        "Clients by round": [
            curve(f"{statistic} validation {metric.label}", *_of("validation", statistic, name))
            for statistic in ("mean", "worst", "bottom_decile")
        ],
        "At the end": [
            bars(f"mean test {metric.label}", *_of("test", "mean", name)),
            bars("gain over local-only training", *(f"over_local/{model}/gain" for model in MODELS)),
            bars("clients harmed", *(f"over_local/{model}/harmed" for model in MODELS)),
        ],
        "Training and cost": [
            curve("training loss", "train_loss"),
            curve("bytes of a round", "bytes_up", "bytes_down"),
            curve("seconds of a round", "seconds/train", "seconds/aggregate", "seconds/evaluate"),
        ],
        "The server's weights": [
            curve(
                "effective neighbours",
                *(f"server/effective_neighbours/{end}" for end in ("min", "mean", "max")),
            )
        ],
    }
    made = [workspaces.Section(name=title, panels=own, is_open=True) for title, own in sections.items()]
    return workspaces.Workspace(entity=entity, project=project, name="fedpl", sections=made)


def _of(split: str, statistic: str, metric: str) -> list[str]:
    return [f"{split}/{model}/{statistic}/{metric}" for model in MODELS]
