"""Which model answers for a client: the aggregate, unless its own validation data say better of another.

A choice of the client alone: nothing of it is needed elsewhere, and the server goes on as without it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from fedpl.data import FederatedData
from fedpl.errors import UserError


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


def check(data: FederatedData) -> None:
    """Refuse clients that have nothing to choose by.

    Raises:
        UserError: Naming the first of them.
    """
    without = [client.id for client in data.clients if not len(client.validation)]
    if without:
        raise UserError(
            f"client.guard: a client chooses by its own validation data, and client '{without[0]}' has none "
            f"({len(without)} of {len(data.clients)} clients); give them a validation split, or set "
            f"client.guard to none"
        )
