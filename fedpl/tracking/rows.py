"""What W&B shows of a round beside its numbers: a table of the clients, and the matrices."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from fedpl.deferred import deferred
from fedpl.pictures.plots import cluster_order, heat_map
from fedpl.records.plain import LARGEST, Matrix
from fedpl.records.rounds import ByClient, RoundRecord, mean_over_blocks
from fedpl.rounds.loop import RoundResult
from fedpl.tracking.closing import MODELS

if TYPE_CHECKING:
    import wandb
    from PIL import Image
else:
    wandb, Image = map(deferred, ("wandb", "PIL.Image"))

_ADDITIONS, _ROWS = 100, 200_000  # of the table of the clients
_POINTS = 80  # of a picture a side: 40 KB where all neighbours differ


def diagnostics(own: ByClient) -> dict[str, float]:
    """Statistics over the clients of what the server knows about its weights."""
    return {
        f"server/{name}/{statistic}": function(getattr(own, name))
        for name in ("row_sum", "absolute_weight", "effective_neighbours", "self_weight")
        for statistic, function in (("mean", np.mean), ("min", np.min), ("max", np.max))
    }


class ClientRows:
    """The table `clients`, which grows: a row for each client of a round, with what is asked about them.

    Args:
        clients: How many clients there are.
        rounds: How many rounds there will be.
    """

    def __init__(self, clients: int, rounds: int) -> None:
        # W&B shows a table's last 100 additions, and takes 200,000 rows.
        self._every = max(math.ceil(rounds / _ADDITIONS), math.ceil(clients * rounds / _ROWS))
        self._rounds = rounds
        self._table: Any = None

    def add(self, record: RoundRecord) -> dict[str, Any]:
        """The table with a round's rows, to be logged; nothing in rounds that are left out."""
        if record.round % self._every and record.round not in (1, self._rounds):
            return {}
        columns = _columns(record)
        if self._table is None:
            self._table = wandb.Table(columns=list(columns), log_mode="INCREMENTAL", allow_mixed_types=True)
        for row in zip(*columns.values(), strict=True):
            self._table.add_data(*row)
        return {"clients": self._table}


def _columns(record: RoundRecord) -> dict[str, Sequence[Any]]:
    """A round by client: scores, gain of the aggregate over the tuned model, neighbours, rejection.

    Always the same columns: what was not scored in this round is empty.
    """
    own = record.clients
    columns: dict[str, Sequence[Any]] = {
        "round": [record.round] * len(own.id),
        "client": own.id,
        "train_loss": [_short(loss) for loss in own.train_loss],
        "effective_neighbours": [_short(number) for number in own.effective_neighbours],
        "self_weight": [_short(number) for number in own.self_weight],
        "rejected": [record.rejected.get(client, "") for client in own.id],
    }
    primary = record.metrics[0]
    for split, scores in (("validation", record.validation), ("test", record.test)):
        models = [None if scores is None else scores.clients[client] for client in own.id]
        for metric in record.metrics:
            for model in MODELS:
                values = [None if one is None else _short(one.value(model, metric)) for one in models]
                columns[f"{split}/{model}/{metric.name}"] = values
        columns[f"{split}/gain"] = [
            None
            if one is None
            else _short(primary.sign * (one.value("aggregated", primary) - one.value("tuned", primary)))
            for one in models
        ]
    return columns


def matrices(record: RoundRecord, result: RoundResult) -> dict[str, Any]:
    """The similarity as a picture; the weights of few clients as a table, of more as a picture too."""
    names, round = tuple(record.clients.id[row] for row in result.rows), record.round
    similarity, weights = mean_over_blocks(result.similarity), mean_over_blocks(result.weights)
    order = cluster_order(similarity)
    shown: Any
    if len(names) > LARGEST:
        shown = _image(weights, names, order, f"Weights: row takes from column, round {round}")
    else:
        rows = [[name, *map(_short, row)] for name, row in zip(names, weights.tolist(), strict=True)]
        shown = wandb.Table(columns=["client", *names], data=rows)
    picture = _image(similarity, names, order, f"Similarity of task vectors, round {round}")
    return {"server/similarity": picture, "server/weights": shown}


def _short(value: float | None) -> float | None:
    """A number in four digits; none for what is not a number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def _image(matrix: Matrix, clients: Sequence[str], order: Sequence[int], title: str) -> Any:
    buffer = BytesIO()
    heat_map(matrix, clients, order, title, _POINTS).savefig(buffer, dpi=80)
    return wandb.Image(Image.open(buffer))
