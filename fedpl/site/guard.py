"""Which model a client uses: what it received, its own, or half of both, by its own validation data.

A choice of the client alone, after its task vector is made: nothing of it travels, and the server goes on
as without it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.objectives.models import Duo, stack_models
from fedpl.training.session import Fit
from fedpl.training.worker import Worker

MODELS = ("received", "own", "mixture")
MEMORY = "guard"  # under which name a client remembers the model that it uses


class Guarded(NamedTuple):
    """What a client uses.

    Attributes:
        model: Which of `MODELS`.
        fit: Its training's, with that model as the one that is used.
    """

    model: str
    fit: Fit


def guard(
    worker: Worker,
    clients: Sequence[str],
    received: Float[Tensor, "clients params"],
    theta: Float[Tensor, "clients params"],
    fits: Sequence[Fit],
) -> list[Guarded]:
    """The model that each client of a cohort uses.

    Args:
        worker: Scores them.
        clients: Whose data.
        received: What they started from.
        theta: What training made of it.
        fits: What their training reports; a model that an objective keeps for use stands for θ.
    """
    rows = [theta[i] if fit.tuned is None else fit.tuned for i, fit in enumerate(fits)]
    own = stack_models(rows)
    assert not isinstance(own, Duo), "pairs of adapters are refused in the settings"
    models = torch.stack([received.to(own), own, (received.to(own) + own) / 2])
    goods = [worker.goods(clients, one, "validation") for one in models]
    # Before a client has received anything of others there is nothing to fall back to.
    untrained = (models[0] == worker.backend.foundation.initial().to(own)).all(1).tolist()
    found = []
    for i, fit in enumerate(fits):
        chosen = 1 if untrained[i] else choose([one[i] for one in goods])
        found.append(Guarded(MODELS[chosen], replace(fit, tuned=models[chosen, i].clone())))
    return found


def choose(goods: Sequence[Float[np.ndarray, "examples"]]) -> int:
    """The first model, unless another is better by more than one standard error of the paired difference.

    One example on which nothing differs is added to the client's own, so that few cannot decide for certain.

    Args:
        goods: Of each model how good each example's answer is, the more the better.
    """
    best, most = 0, 0.0
    for number, own in enumerate(goods[1:], 1):
        mean, error = advantage(own, goods[0])
        # One example won and none lost is just one standard error, which rounding must not decide.
        if mean > error * (1 + 1e-9) and mean > most:
            best, most = number, mean
    return best


def advantage(
    own: Float[np.ndarray, "examples"], other: Float[np.ndarray, "examples"]
) -> tuple[float, float]:
    """How much better answers are than others to the same examples, and the standard error of that.

    Args:
        own: How good each answer is.
        other: The same of the others.
    """
    gain = np.append(own - other, 0.0)
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))


def check(data: FederatedData, setting: str = "client.guard", otherwise: str = "none") -> None:
    """Refuse clients that have nothing to choose by.

    Args:
        data: The clients.
        setting: Which lets them choose.
        otherwise: Its value that does not.

    Raises:
        UserError: Naming the first of them.
    """
    without = [client.id for client in data.clients if not len(client.validation)]
    if without:
        raise UserError(
            f"{setting}: a client chooses by its own validation data, and client '{without[0]}' has none "
            f"({len(without)} of {len(data.clients)} clients); give them a validation split, or set "
            f"{setting} to {otherwise}"
        )
