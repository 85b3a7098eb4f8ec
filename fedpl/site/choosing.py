"""What answers for a client when a run has ended: its aggregate, its tuned or its local model.

Chosen like what a guard chooses, by the client's own validation data and for the client alone.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from fedpl.files import make_folder, quoted, writing
from fedpl.model.saved import save_adapter
from fedpl.records.choice import FOLDER, Advantage, Choice
from fedpl.records.messages import Serve
from fedpl.site.guard import MEMORY, advantage, choose
from fedpl.site.memory import Memory
from fedpl.training.worker import Worker

TUNED = "tuned"  # under which name a client remembers the model that it used after the last round


def serve(notice: Serve, worker: Worker, memory: Memory) -> None:
    """Let every client choose, and write under ``best/`` what it chose, and its adapter unless that is θ̄ᵢ.

    Args:
        notice: The models.
        worker: Scores them.
        memory: What the clients remember.

    Raises:
        UserError: If nothing can be written.
    """
    foundation, folder = worker.backend.foundation, Path(notice.folder) / FOLDER
    models: dict[str, dict[str, Tensor]] = {
        "aggregated": dict(zip(notice.clients, notice.models, strict=True))
    }
    remembered = {client: memory.recall(client, notice.memories[client]) for client in notice.tuned}
    models["tuned"] = {
        client: state[TUNED if TUNED in state else MEMORY].to(notice.models)
        for client, state in remembered.items()
    }
    if notice.local is not None:
        models["local"] = dict(zip(notice.clients, notice.local, strict=True))
    goods = {
        name: dict(
            zip(own, worker.goods(list(own), torch.stack(list(own.values())), "validation"), strict=True)
        )
        for name, own in models.items()
        if own
    }
    for client in notice.clients:
        choice = decide({name: own[client] for name, own in goods.items() if client in own})
        where = folder / quoted(client)
        with writing(where):
            make_folder(folder)
            make_folder(where)
            if choice.model != "aggregated":
                own, classes = models[choice.model][client], worker.partitions.classes[client]
                save_adapter(own, foundation.model, foundation.layout, where, classes=classes)
            choice.write(where)


def decide(goods: Mapping[str, Float[np.ndarray, "examples"]]) -> Choice:
    """What a client chooses.

    Args:
        goods: Of each model how good each validation example's answer is, the more the better; the
            aggregate's first.
    """
    names, found = list(goods), list(goods.values())
    over = {name: _between(own, found[0]) for name, own in goods.items()}
    return Choice(
        model=names[choose(found)],
        examples=len(found[0]),
        tuned=over.get("tuned"),
        local=over.get("local"),
    )


def _between(own: np.ndarray, other: np.ndarray) -> Advantage:
    mean, error = advantage(own, other)
    reach = float(stdtrit(len(own), 0.975)) * error
    return Advantage(mean=mean, low=mean - reach, high=mean + reach)
