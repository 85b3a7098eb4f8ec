"""What W&B is told when a run ends beside its own scores: the comparison, alerts, an artifact."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpl.deferred import deferred
from fedpl.records.results import Model, RunSummary
from fedpl.records.scores import MARGIN, is_harmed

if TYPE_CHECKING:
    import wandb
else:
    wandb = deferred("wandb")

_MODELS: tuple[Model, ...] = ("aggregated", "tuned")
_NAMED = 20  # clients in an alert


def harmed(summary: RunSummary, model: Model) -> tuple[str, ...]:
    """Clients whose model is more than two points below the one they train alone; none without `local`."""
    alone, metric = summary.baselines.get("local"), summary.primary
    if alone is None:
        return ()
    return tuple(
        client
        for client, own in summary.clients.items()
        if is_harmed(
            own.scores.value(model, metric),
            alone.scores_of(client).value("aggregated", metric),
            metric,
            MARGIN,
        )
    )


def comparison(summary: RunSummary) -> dict[str, float | str]:
    """The run beside its baselines, by the primary metric of the test; clients beside training alone."""
    metric = summary.primary
    found: dict[str, float | str] = {
        f"baselines/{name}/{statistic}/{model}": baseline.test.value(statistic, model, metric)
        for name, baseline in summary.baselines.items()
        for statistic in ("mean", "worst")
        for model in _MODELS
    }
    alone = summary.baselines.get("local")
    for model in _MODELS if alone is not None else ():
        assert alone is not None
        gains = [
            metric.sign
            * (own.scores.value(model, metric) - alone.scores_of(client).value("aggregated", metric))
            for client, own in summary.clients.items()
        ]
        known = [gain for gain in gains if math.isfinite(gain)]
        found[f"over_local/gain/{model}"] = float(np.mean(known)) if known else math.nan
        found[f"over_local/harmed/{model}"] = float(len(harmed(summary, model)))
        found[f"over_local/harmed_clients/{model}"] = ", ".join(harmed(summary, model))
    return {name: value for name, value in found.items() if isinstance(value, str) or math.isfinite(value)}


def alert(run: Any, summary: RunSummary) -> None:
    """Send an alert about clients that are harmed, and one about those whose task vectors were not used."""
    kinds = {
        "clients harmed": harmed(summary, "aggregated"),
        "clients' task vectors not used": tuple(summary.rejected),
    }
    for what, clients in kinds.items():
        if clients:
            more = f" and {len(clients) - _NAMED} more" if len(clients) > _NAMED else ""
            run.alert(
                title=f"{summary.method}: {len(clients)} {what}",
                text=f"{', '.join(clients[:_NAMED])}{more} (run {run.name})",
                level="WARN",
            )


def keep(run: Any, summary: RunSummary, folder: Path) -> None:
    """Log the summary and the clients' adapters as an artifact of the run, which gives them a lineage."""
    about = {"method": summary.method, "seed": summary.seed, "rounds": summary.rounds, "data": summary.data}
    artifact = wandb.Artifact(f"fedpl-{run.id}", type="federation", metadata=about)
    artifact.add_file(str(folder / RunSummary.FILE))
    for name in ("adapters", "personal"):
        if (folder / name).is_dir():
            artifact.add_dir(str(folder / name), name=name)
    run.log_artifact(artifact)
