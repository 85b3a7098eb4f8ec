"""The parameters of a sweep file: what each may be, checked, and its values by quantile or by number."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpl.sweep.distributions import quantile

_Keys = tuple[tuple[str, ...], dict[str, float]]
_BOUNDS: _Keys = (("min", "max"), {})
_QUANTISED: _Keys = (("min", "max"), {"q": 1})
_GAUSS: _Keys = ((), {"mu": 0.0, "sigma": 1.0})
_BETA: _Keys = ((), {"a": 1.0, "b": 1.0})

# Each distribution of W&B's sweep schema: what it must and what it may say, with W&B's defaults.
_KEYS: dict[str, _Keys] = {
    "constant": (("value",), {}),
    "categorical": (("values",), {}),
    "categorical_w_probabilities": (("values", "probabilities"), {}),
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "q_uniform": _QUANTISED,
    "q_log_uniform": _QUANTISED,
    "q_log_uniform_values": _QUANTISED,
    "normal": _GAUSS,
    "log_normal": _GAUSS,
    "beta": _BETA,
    "q_normal": (_GAUSS[0], _GAUSS[1] | {"q": 1}),
    "q_log_normal": (_GAUSS[0], _GAUSS[1] | {"q": 1}),
    "q_beta": (_BETA[0], _BETA[1] | {"q": 1}),
}
_GRID = ("constant", "categorical", "int_uniform", "q_uniform")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Dimension:
    """One parameter of a sweep.

    Attributes:
        name: The dotted key it sets.
        distribution: Name of its distribution in W&B's schema.
        spec: The distribution's parameters, defaults filled in.
    """

    name: str
    distribution: str
    spec: dict[str, Any] = field(hash=False)

    @property
    def choices(self) -> list[Any] | None:
        """The values between which it chooses without an order, None for a number from a range."""
        if self.distribution == "constant":
            return [self.spec["value"]]
        return list(self.spec["values"]) if self.distribution == "categorical" else None

    @property
    def logarithmic(self) -> bool:
        """Whether its values are spread over orders of magnitude."""
        return "log" in self.distribution

    def at(self, u: float) -> Any:
        """The value at a quantile, for a parameter without `choices`."""
        return quantile(self.distribution, self.spec, u)

    def grid(self) -> list[Any]:
        """All values; for a quantised range, as W&B has it, min and every step after it that is below max.

        Raises:
            ValueError: If it has no grid.
        """
        if self.choices is not None:
            return self.choices
        low, high = self.spec["min"], self.spec["max"]
        if self.distribution == "int_uniform":
            return list(range(low, high + 1))
        if self.distribution == "q_uniform":
            q = self.spec["q"]
            return [round(low + step * q, 12) for step in range(math.ceil((high - low) / q - 1e-9))]
        raise ValueError(f"{self.distribution} has no grid")

    def samples(self) -> list[Any]:
        """Values to try a parser on: all choices, else both ends."""
        return self.choices or [self.at(0.0), self.at(0.5), self.at(1.0)]


def read_space(parameters: Any, method: str) -> tuple[list[Dimension], list[str]]:
    """The dimensions of a sweep file's ``parameters`` and what is wrong with them.

    Args:
        parameters: The section as YAML gives it; nested ``parameters`` become dotted keys.
        method: grid, random or bayes.
    """
    if not isinstance(parameters, dict) or not parameters:
        return [], ["parameters: expected at least one parameter by name"]
    dimensions, wrong = [], []
    for name, spec in _flat(parameters):
        if not _KEY.fullmatch(name):
            wrong.append(f"parameters.{name}: a name starts with a letter and has no spaces")
            continue
        if not isinstance(spec, dict):
            wrong.append(f"parameters.{name}: expected value, values or a distribution, got {spec!r}")
            continue
        dimension, found = _dimension(name, spec)
        wrong += [f"parameters.{name}: {what}" for what in [*found, *_unfit(dimension, method)]]
        if dimension is not None:
            dimensions.append(dimension)
    return dimensions, wrong


def _flat(parameters: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, spec in parameters.items():
        if isinstance(spec, dict) and set(spec) == {"parameters"} and isinstance(spec["parameters"], dict):
            yield from _flat(spec["parameters"], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", spec


def _dimension(name: str, spec: dict[str, Any]) -> tuple[Dimension | None, list[str]]:
    distribution = spec.get("distribution") or _implied(spec)
    if distribution not in _KEYS:
        known = ", ".join(_KEYS)
        return None, [f"expected value, values, min and max, or a distribution among {known}, got {spec}"]
    required, optional = _KEYS[distribution]
    given = {key: value for key, value in spec.items() if key != "distribution"}
    wrong = [f"{distribution} needs {key}" for key in required if key not in given]
    wrong += [f"{distribution} knows no {key}" for key in given if key not in (*required, *optional)]
    if wrong:
        return None, wrong
    dimension = Dimension(name, distribution, {**optional, **given})
    wrong = _values_wrong(dimension)
    return (None if wrong else dimension), wrong


def _implied(spec: dict[str, Any]) -> str | None:
    """The distribution that W&B takes where none is named."""
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical_w_probabilities" if "probabilities" in spec else "categorical"
    if "min" in spec and "max" in spec:
        whole = _whole(spec["min"]) and _whole(spec["max"])
        return "int_uniform" if whole else "uniform"
    return None


def _values_wrong(dimension: Dimension) -> list[str]:
    """What is wrong with the parameters of a distribution."""
    spec, kind = dimension.spec, dimension.distribution
    if kind in ("constant", "categorical", "categorical_w_probabilities"):
        return _choices_wrong(spec, kind)
    strange = [
        key for key, value in spec.items() if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    if strange:
        return [f"{key} must be a number, got {spec[key]!r}" for key in strange]
    checks = (
        (
            kind != "int_uniform" or (_whole(spec["min"]) and _whole(spec["max"])),
            "min and max are whole numbers",
        ),
        ("min" not in spec or spec["min"] < spec["max"], "min must be below max"),
        (not kind.endswith("_values") or spec["min"] > 0, "min must be positive for a logarithm"),
        (spec.get("q", 1) > 0, "q must be positive"),
        (spec.get("sigma", 1) > 0, "sigma must be positive"),
        (spec.get("a", 1) > 0 and spec.get("b", 1) > 0, "a and b must be positive"),
    )
    return [what for holds, what in checks if not holds]


def _choices_wrong(spec: dict[str, Any], kind: str) -> list[str]:
    values = [spec["value"]] if kind == "constant" else spec["values"]
    if not isinstance(values, list) or not values:
        return ["values must be a list of at least one value"]
    wrong = []
    if any(value is None for value in values):
        # W&B's agent writes None on the command line, which means a word there.
        wrong.append("write 'null' in quotes: an agent cannot pass on an empty value")
    if kind == "categorical_w_probabilities":
        shares = spec["probabilities"]
        numbers = isinstance(shares, list) and all(isinstance(p, int | float) and p >= 0 for p in shares)
        if not numbers or len(shares) != len(values) or abs(sum(shares) - 1) > 1e-6:
            wrong.append("probabilities must be one number per value, not negative, with sum 1")
    return wrong


def _unfit(dimension: Dimension | None, method: str) -> Sequence[str]:
    """What a method cannot do with a distribution."""
    if dimension is None:
        return ()
    if method == "grid" and dimension.distribution not in _GRID:
        return (f"a grid takes {', '.join(_GRID)}, not {dimension.distribution}",)
    if method == "bayes" and dimension.distribution == "categorical_w_probabilities":
        return ("categorical_w_probabilities is for method random: bayes finds probabilities of its own",)
    return ()


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
