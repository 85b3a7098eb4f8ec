"""A run in Weights & Biases: one run per federated run, one step per round, never a prompt."""

import netrc
import os
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from fedpl.config import WandbConfig
from fedpl.deferred import deferred
from fedpl.pictures.plots import cluster_order, heat_map
from fedpl.records.plain import encode, flat
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord, mean_over_blocks
from fedpl.rounds.loop import RoundResult

if TYPE_CHECKING:
    import wandb
    from PIL import Image
else:
    wandb, Image = map(deferred, ("wandb", "PIL.Image"))

Mode = Literal["online", "offline", "disabled"]


def choose_mode(config: WandbConfig) -> Mode:
    """online, offline or disabled, without asking anybody.

    ``--tracking.wandb.mode`` wins over the environment's ``WANDB_MODE``, which wins over online when logged
    in and offline otherwise.
    """
    if config.mode != "auto":
        return config.mode
    # `dryrun` and `shared` are older and narrower names of the same.
    asked: dict[str, Mode] = {
        "online": "online",
        "shared": "online",
        "offline": "offline",
        "dryrun": "offline",
        "disabled": "disabled",
    }
    return asked.get(os.environ.get("WANDB_MODE", "")) or ("online" if logged_in() else "offline")


def logged_in() -> bool:
    """Whether a key for the W&B server lies in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if host and netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


class WandbTracker:
    """Logs each round, with heat map and weight table, and the summary.

    Args:
        config: Mode, project, names.
        folder: The run directory; W&B's own files go below it.
        settings: The resolved configuration.
        clients: Client ids, in the order of the rows.
        id: The W&B run's id; a run with this id is gone on with.
    """

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        settings: dict[str, Any],
        clients: tuple[str, ...],
        id: str | None = None,
    ) -> None:
        self.clients = clients
        mode = choose_mode(config)
        if mode == "online" and not logged_in():
            _warn("not logged in to W&B: recording offline (upload later with `wandb sync`)")
            mode = "offline"
        options: dict[str, Any] = {
            "project": config.project,
            # A run of a sweep has its id from there and cannot be gone on with.
            **({} if id is None or "WANDB_SWEEP_ID" in os.environ else {"id": id, "resume": "allow"}),
            "name": config.name or folder.name,
            "group": config.group,
            "tags": list(config.tags),
            "config": settings,
            "dir": str(folder),
            "settings": wandb.Settings(silent=True, console="off", init_timeout=30, x_disable_stats=True),
        }
        try:
            self.run = wandb.init(mode=mode, **options)
        except wandb.errors.CommError as error:
            _warn(f"W&B cannot be reached ({error}): recording offline")
            self.run = wandb.init(mode="offline", **options)
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        """Log a round's numbers, the similarity as an image and the weights as a table."""
        similarity, weights = mean_over_blocks(result.similarity), mean_over_blocks(result.weights)
        rows = [[name, *row] for name, row in zip(self.clients, weights.tolist(), strict=True)]
        title = f"Similarity of task vectors, round {result.round}"
        diagnostics: dict[str, Any] = {
            f"server/{name}/{statistic}": function(getattr(record.clients, name))
            for name in ("row_sum", "absolute_weight", "effective_neighbours", "self_weight")
            for statistic, function in (("mean", np.mean), ("min", np.min), ("max", np.max))
        }
        rejected = [[client, reason] for client, reason in result.rejected.items()]
        if rejected:
            diagnostics["server/rejected"] = wandb.Table(columns=["client", "reason"], data=rejected)
        self.run.log(
            {
                **flat(record.to_json()),
                **diagnostics,
                "server/similarity": _image(similarity, self.clients, title),
                "server/weights": wandb.Table(columns=["client", *self.clients], data=rows),
            },
            # A round that an interrupted process had logged already is not logged twice.
            step=result.round,
        )

    def finish(self, summary: RunSummary) -> None:
        """Write the closing scores to the run's summary and end the run."""
        self.run.summary.update(flat({"test": encode(summary.test), "total_seconds": summary.seconds.total}))
        self.run.finish()

    def close(self) -> None:
        """End the run as failed: what comes next in this process must not go on in it."""
        self.run.finish(exit_code=1)


def _image(similarity: Any, clients: tuple[str, ...], title: str) -> Any:
    buffer = BytesIO()
    heat_map(similarity, clients, cluster_order(similarity), title).savefig(buffer, dpi=80)
    return wandb.Image(Image.open(buffer))


def _warn(message: str) -> None:
    print(f"fedpl: {message}", file=sys.stderr)
