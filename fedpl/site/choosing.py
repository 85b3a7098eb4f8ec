"""What answers for a client when a run has ended: its aggregate, its tuned or local model, or a mixture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from fedpl.files import make_folder, quoted, writing
from fedpl.model.saved import save_adapter
from fedpl.records.choice import FOLDER, Advantage, Choice
from fedpl.records.messages import Choose
from fedpl.records.scores import Scores
from fedpl.site.guard import advantage, choose
from fedpl.site.memory import Memory
from fedpl.training.worker import Worker

Score: TypeAlias = Callable[[Sequence[str], Tensor, str], Mapping[str, Scores]]
TUNED = "tuned"  # under which name a client remembers the model that it used after the last round


def let_choose(notice: Choose, worker: Worker, memory: Memory, score: Score) -> None:
    """Let every client choose, and write under ``best/`` what it chose, and its adapter unless that is θ̄ᵢ.

    Args:
        notice: The models.
        worker: Answers the validation data.
        memory: What the clients remember.
        score: Of the site: quality on a split of each client that has some.

    Raises:
        UserError: If nothing can be written.
    """
    if not notice.clients:
        return
    foundation, folder = worker.backend.foundation, Path(notice.folder) / FOLDER
    models = _models(notice, memory)
    goods = {name: _by_client(own, worker) for name, own in models.items()}
    choices = {
        client: decide({name: own[client] for name, own in goods.items() if client in own})
        for client in notice.clients
    }
    chosen = {client: models[choice.model][client] for client, choice in choices.items()}
    scores = score(list(chosen), torch.stack(list(chosen.values())), "test")
    for client, choice in choices.items():
        where = folder / quoted(client)
        with writing(where):
            make_folder(folder)
            make_folder(where)
            if choice.model != "aggregated":
                own, classes = chosen[client], worker.partitions.classes[client]
                save_adapter(own, foundation.model, foundation.layout, where, classes=classes)
            replace(choice, test=scores.get(client)).write(where)


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
        mixture=over.get("mixture"),
        local=over.get("local"),
    )


def _models(notice: Choose, memory: Memory) -> dict[str, dict[str, Float[Tensor, "params"]]]:
    """Each client's models, by name; whoever took no part in the last round has no tuned one."""
    received = dict(zip(notice.clients, notice.models, strict=True))
    tuned = {
        client: memory.recall(client, notice.memories[client])[TUNED].to(notice.models)
        for client in notice.tuned
    }
    mixture = {client: (received[client] + own) / 2 for client, own in tuned.items()}
    local = {} if notice.local is None else dict(zip(notice.clients, notice.local, strict=True))
    return {"aggregated": received, "tuned": tuned, "mixture": mixture, "local": local}


def _by_client(models: Mapping[str, Tensor], worker: Worker) -> dict[str, Float[np.ndarray, "examples"]]:
    """How good each answer to a client's validation data is."""
    if not models:
        return {}
    found = worker.goods(list(models), torch.stack(list(models.values())), "validation")
    return dict(zip(models, found, strict=True))


def _between(own: np.ndarray, other: np.ndarray) -> Advantage:
    mean, error = advantage(own, other)
    reach = float(stdtrit(len(own), 0.975)) * error
    return Advantage(mean=mean, low=mean - reach, high=mean + reach)
