"""A sweep file in W&B's format, read and checked: what is searched, for which metric, by which command."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedpl.errors import UserError
from fedpl.presets import read_yaml
from fedpl.records.scores import Metric, Summary
from fedpl.sweep.space import Dimension, read_space
from fedpl.tasks.metrics import EVERY

Method = Literal["grid", "random", "bayes"]

# Keys of W&B's sweep schema that change nothing here: they are for its server, or only names.
_FOR_THE_SERVER = {"apiVersion", "kind", "controller", "description", "entity"}
_REFUSED = {
    "job": "a launch job",
    "image_uri": "a launch image",
    "scheduler": "a scheduler of your own",
    "metrics": "several objectives",
}
_READ = {
    "program",
    "project",
    "method",
    "command",
    "name",
    "run_cap",
    "metric",
    "early_terminate",
    "parameters",
}
_MODELS = ("aggregated", "tuned")
_ARGUMENTS = ("${args}", "${args_no_equals}")


@dataclass(frozen=True)
class Halving:
    """Early termination by successive halving.

    Attributes:
        min_iter: Round of the first cut.
        eta: At rounds min_iter · etaᵏ the best 1/eta of the trials that came so far go on.
    """

    min_iter: int
    eta: int


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        name: Name of the sweep; trials are one W&B group of this name.
        method: How values are chosen.
        metric: What is optimised, as W&B names it: ``validation/aggregated/mean/accuracy``.
        goal: minimize or maximize.
        target: No trial is begun after one has reached this value.
        dimensions: What is searched.
        fixed: Arguments of ``python -m fedpl.fit`` that all trials share.
        halving: When trials are cut short; None: never.
        run_cap: Most trials.
    """

    name: str
    method: Method
    metric: str
    goal: Literal["minimize", "maximize"]
    target: float | None
    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]
    halving: Halving | None
    run_cap: int | None

    def reached(self, value: float) -> bool:
        """Whether a trial's value is as good as the target."""
        if self.target is None:
            return False
        return value >= self.target if self.goal == "maximize" else value <= self.target


def read_sweep(path: Path, metrics: Sequence[Metric] = EVERY) -> Sweep:
    """A sweep from its file.

    Args:
        path: The file.
        metrics: What a score consists of.

    Raises:
        UserError: If it cannot be read, with all that is wrong with it.
    """
    content = read_yaml(path)
    wrong = [f"{key}: {what} needs W&B's server" for key, what in _REFUSED.items() if key in content]
    wrong += [
        f"{key}: no key of a sweep; there are {', '.join(sorted(_READ))}"
        for key in content
        if key not in _READ | _FOR_THE_SERVER | set(_REFUSED)
    ]
    method: Any = content.get("method")
    if method not in ("grid", "random", "bayes"):
        wrong.append(f"method: grid, random or bayes, got {method!r}")
    dimensions, found = read_space(content.get("parameters"), str(method))
    wrong += found
    name, goal, target, found = _metric(content.get("metric"), metrics)
    wrong += found
    fixed, found = _fixed_arguments(content.get("program"), content.get("command"))
    wrong += found
    if content.get("project"):
        fixed = [f"--tracking.wandb.project={content['project']}", *fixed]
    halving, found = _halving(content.get("early_terminate"))
    wrong += found
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or cap < 1):
        wrong.append(f"run_cap: a number of trials from 1, got {cap!r}")
    if wrong:
        several = "\n  ".join(["the sweep does not fit:", *wrong])
        raise UserError(f"{path}: {wrong[0] if len(wrong) == 1 else several}")
    return Sweep(
        str(content.get("name", path.stem)),
        method,
        name,
        goal,
        target,
        tuple(dimensions),
        tuple(fixed),
        halving,
        cap,
    )


def _metric(section: Any, metrics: Sequence[Metric]) -> tuple[str, Any, float | None, list[str]]:
    """Name, goal and target, and what is wrong with them."""
    if not isinstance(section, dict) or "name" not in section:
        example = f"validation/aggregated/mean/{metrics[0].name}"
        return "", "minimize", None, [f"metric: name what is optimised: {example}"]
    name, goal, target = section["name"], section.get("goal", "minimize"), section.get("target")
    wrong = [f"metric.{key}: not available here" for key in section if key not in ("name", "goal", "target")]
    known = {
        f"validation/{model}/{statistic}/{metric.name}": metric
        for model in _MODELS
        for statistic in Summary._fields
        for metric in metrics
    }
    if str(name).startswith("test"):
        wrong.append("metric.name: settings are chosen on validation data; test data are for the end")
    elif name not in {*known, "train_loss"}:
        wrong.append(
            f"metric.name: train_loss or validation/MODEL/STATISTIC/SCORE with {', '.join(_MODELS)}; "
            f"{', '.join(Summary._fields)}; {', '.join(metric.name for metric in metrics)}, got {name!r}"
        )
    if goal not in ("minimize", "maximize"):
        wrong.append(f"metric.goal: minimize or maximize, got {goal!r}")
    elif _against(goal, str(name), known.get(name)):
        better = "maximize" if goal == "minimize" else "minimize"
        wrong.append(f"metric.goal: {name} is better the other way: write goal: {better}, got {goal}")
    if target is not None and not isinstance(target, int | float):
        wrong.append(f"metric.target: a number, got {target!r}")
    return str(name), goal, target, wrong


def _against(goal: str, name: str, metric: Metric | None) -> bool:
    """Whether a goal runs against a metric's direction; where it is absent, W&B minimises."""
    return metric is not None and "/std/" not in name and (goal == "maximize") != metric.higher


def _fixed_arguments(program: Any, command: Any) -> tuple[list[str], list[str]]:
    """What a command gives to fedpl.fit beside the parameters, and what is wrong with it."""
    if command is None:
        right = bool(re.fullmatch(r"(.*/)?fedpl/fit\.py", str(program)))
        return [], [] if right else [
            f"program: fedpl/fit.py, or a command with -m fedpl.fit, got {program!r}"
        ]
    if not isinstance(command, list):
        return [], ["command: expected a list of words"]
    words = [str(program) if word == "${program}" else str(word) for word in command]
    if "fedpl.fit" not in words or words[words.index("fedpl.fit") - 1] != "-m":
        return [], ["command: expected '-m', 'fedpl.fit' and its arguments among the words"]
    rest = words[words.index("fedpl.fit") + 1 :]
    wrong = [
        f"command: {word} is not understood by fedpl.fit; use {' or '.join(_ARGUMENTS)}"
        for word in rest
        if word.startswith("${") and word not in _ARGUMENTS
    ]
    if not set(rest) & set(_ARGUMENTS):
        wrong.append("command: without ${args} no parameter would reach a trial")
    return [word for word in rest if not word.startswith("${")], wrong


def _halving(section: Any) -> tuple[Halving | None, list[str]]:
    """Rounds at which trials are cut, and what is wrong with the section."""
    if section is None:
        return None, []
    if not isinstance(section, dict) or section.get("type") != "hyperband":
        return None, ["early_terminate.type: hyperband is the only one"]
    known = {"type", "min_iter", "max_iter", "s", "eta", "strict"}
    wrong = [f"early_terminate.{key}: no such key" for key in section if key not in known]
    numbers = {key: section[key] for key in ("min_iter", "max_iter", "s", "eta") if key in section}
    wrong += [
        f"early_terminate.{key}: a whole number from {2 if key == 'eta' else 1} here, got {value!r}"
        for key, value in numbers.items()
        if not isinstance(value, int) or value < (2 if key == "eta" else 1)
    ]
    if section.get("strict", True) is not True:
        wrong.append("early_terminate.strict: trials are always cut strictly here; leave it out")
    if "min_iter" not in numbers and not {"max_iter", "s"} <= set(numbers):
        wrong.append("early_terminate: give min_iter, or max_iter and s")
    if wrong:
        return None, wrong
    eta = numbers.get("eta", 3)
    first = (
        numbers["min_iter"] if "min_iter" in numbers else _first_band(numbers["max_iter"], numbers["s"], eta)
    )
    return Halving(first, eta), []


def _first_band(last: int, cuts: int, eta: int) -> int:
    """The first of the rounds last / etaᵏ, k = 1 … cuts, that is at least 1."""
    bands = [last // eta**k for k in range(1, cuts + 1) if last >= eta**k]
    return min(bands, default=last)


def size_of_grid(dimensions: Sequence[Dimension]) -> int:
    """Number of points of a grid."""
    size = 1
    for dimension in dimensions:
        size *= len(dimension.grid())
    return size
