"""What W&B's summary says of a run: its scores, the best round, the comparison; alerts, an artifact."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpl.deferred import deferred
from fedpl.records.choice import FOLDER
from fedpl.records.results import Model, RunSummary, Statistics
from fedpl.records.rounds import RoundRecord
from fedpl.records.scores import MARGIN, Metric, Summary, is_harmed

if TYPE_CHECKING:
    import wandb
else:
    wandb = deferred("wandb")

MODELS: tuple[Model, ...] = ("aggregated", "tuned")
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


def scores(split: str, found: Statistics, metrics: Sequence[Metric]) -> dict[str, float]:
    """Statistics over the clients as the history names them, ``SPLIT/MODEL/STATISTIC/METRIC``."""
    models: tuple[Model, ...] = (*MODELS, "chosen", "majority")
    values = {
        f"{split}/{model}/{statistic}/{metric.name}": found.value(statistic, model, metric)
        for model in models
        for statistic in Summary._fields
        for metric in metrics
    }
    return {name: value for name, value in values.items() if math.isfinite(value)}


def older_names(found: Mapping[str, float]) -> dict[str, float]:
    """The same as ``SPLIT/STATISTIC/MODEL/METRIC``, which a sweep's file may still name."""
    swapped = {}
    for name, value in found.items():
        split, model, statistic, metric = name.split("/")
        swapped[f"{split}/{statistic}/{model}/{metric}"] = value
    return swapped


def better(best: Mapping[str, float], record: RoundRecord) -> dict[str, float]:
    """The best validation scores of all rounds so far, each by itself, and the best round.

    Args:
        best: Of the rounds before.
        record: A round.
    """
    found = dict(best)
    if record.validation is None:
        return found
    for model in MODELS:
        for statistic in ("mean", "worst"):
            for metric in record.metrics:
                value = getattr(getattr(record.validation, model), statistic)[metric.name]
                name = f"best/validation/{model}/{statistic}/{metric.name}"
                if not math.isfinite(value):
                    continue
                if name not in found or metric.sign * value > metric.sign * found[name]:
                    found[name] = value
                    if (model, statistic, metric) == ("aggregated", "mean", record.metrics[0]):
                        found["best/round"] = record.round
    return found


def comparison(summary: RunSummary) -> dict[str, float | str]:
    """The baselines' scores, and the run's clients beside training alone by the test's primary metric."""
    metric = summary.primary
    found: dict[str, float | str] = {}
    for name, baseline in summary.baselines.items():
        found |= scores(f"baselines/{name}/test", baseline.test, summary.metrics)
    alone = summary.baselines.get("local")
    if alone is None:
        return found
    for model in summary.models:
        gains = [
            metric.sign
            * (own.scores.value(model, metric) - alone.scores_of(client).value("aggregated", metric))
            for client, own in summary.clients.items()
        ]
        known = [gain for gain in gains if math.isfinite(gain)]
        if known:
            found[f"over_local/{model}/gain"] = float(np.mean(known))
        hurt = harmed(summary, model)
        found[f"over_local/{model}/harmed"] = float(len(hurt))
        found[f"over_local/{model}/harmed_clients"] = ", ".join(hurt)
    return found


def headline(summary: RunSummary) -> dict[str, Any]:
    """What a run was and found, by the names that W&B's summary has."""
    about = {"method": summary.method, "seed": summary.seed, "rounds": summary.rounds}
    about |= {"clients": len(summary.clients), "seconds": summary.seconds.total}
    return about | scores("test", summary.test, summary.metrics) | comparison(summary)


def alert(run: Any, summary: RunSummary) -> None:
    """Send an alert about clients that are harmed, and one about those whose task vectors were not used."""
    answers: Model = "chosen" if "chosen" in summary.models else "aggregated"
    kinds = {
        "clients harmed": harmed(summary, answers),
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
    for name in ("adapters", "personal", FOLDER):
        if (folder / name).is_dir():
            artifact.add_dir(str(folder / name), name=name)
    run.log_artifact(artifact)
