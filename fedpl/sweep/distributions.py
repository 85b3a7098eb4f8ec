"""The distributions of W&B's sweep schema as quantile functions: from u in (0, 1) to a value."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fedpl.deferred import deferred

special = deferred("scipy.special")
Spec = Mapping[str, Any]
_EDGE = 1e-9  # a normal distribution has no value at 0 or 1


def _uniform(spec: Spec, u: float) -> float:
    return spec["min"] + u * (spec["max"] - spec["min"])


def _int_uniform(spec: Spec, u: float) -> int:
    return min(spec["min"] + int(u * (spec["max"] - spec["min"] + 1)), spec["max"])


def _log_uniform(spec: Spec, u: float) -> float:
    """log X is uniform between min and max."""
    return math.exp(_uniform(spec, u))


def _log_uniform_values(spec: Spec, u: float) -> float:
    """log X is uniform between log(min) and log(max)."""
    value = math.exp(_uniform({"min": math.log(spec["min"]), "max": math.log(spec["max"])}, u))
    return min(max(value, spec["min"]), spec["max"])


def _inv_log_uniform(spec: Spec, u: float) -> float:
    """log(1/X) is uniform between min and max."""
    return math.exp(-_uniform(spec, 1 - u))


def _inv_log_uniform_values(spec: Spec, u: float) -> float:
    """log(1/X) is uniform between log(1/max) and log(1/min), which makes log X uniform too."""
    return _log_uniform_values(spec, u)


def _normal(spec: Spec, u: float) -> float:
    return spec["mu"] + spec["sigma"] * float(special.ndtri(u))


def _log_normal(spec: Spec, u: float) -> float:
    return math.exp(_normal(spec, u))


def _beta(spec: Spec, u: float) -> float:
    return float(special.betaincinv(spec["a"], spec["b"], u))


def _categorical_w_probabilities(spec: Spec, u: float) -> Any:
    place = int(np.searchsorted(np.cumsum(spec["probabilities"]), u, side="right"))
    return spec["values"][min(place, len(spec["values"]) - 1)]


def _quantised(base: Callable[[Spec, float], float]) -> Callable[[Spec, float], float | int]:
    """round(X / q) · q, whole numbers where q is one."""

    def quantile(spec: Spec, u: float) -> float | int:
        return on_grid(base(spec, u), spec["q"])

    return quantile


def on_grid(value: float, q: float | int) -> float | int:
    """The multiple of q nearest to a value, without the last bits that the multiplication leaves."""
    steps = round(value / q)
    return steps * q if isinstance(q, int) else round(steps * q, 12)


QUANTILES: dict[str, Callable[[Spec, float], Any]] = {
    "uniform": _uniform,
    "int_uniform": _int_uniform,
    "log_uniform": _log_uniform,
    "log_uniform_values": _log_uniform_values,
    "inv_log_uniform": _inv_log_uniform,
    "inv_log_uniform_values": _inv_log_uniform_values,
    "normal": _normal,
    "log_normal": _log_normal,
    "beta": _beta,
    "categorical_w_probabilities": _categorical_w_probabilities,
    "q_uniform": _quantised(_uniform),
    "q_log_uniform": _quantised(_log_uniform),
    "q_log_uniform_values": _quantised(_log_uniform_values),
    "q_normal": _quantised(_normal),
    "q_log_normal": _quantised(_log_normal),
    "q_beta": _quantised(_beta),
}


def quantile(distribution: str, spec: Spec, u: float) -> Any:
    """The value of a distribution at a quantile.

    Args:
        distribution: Its name in W&B's schema.
        spec: Its parameters, defaults filled in.
        u: In [0, 1].
    """
    return QUANTILES[distribution](spec, min(max(u, _EDGE), 1 - _EDGE))
