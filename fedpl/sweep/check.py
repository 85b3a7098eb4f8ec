"""Whether a sweep's trials will be accepted by fedpl.fit, asked before the first one runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.presets import yaml_value
from fedpl.problems import check
from fedpl.sweep.plan import Sweep, size_of_grid

# A trial needs neither baselines nor pictures; the file's command and the command line may ask for them.
_LEAN = {"baselines": [], "tracking.plots": False, "tracking.progress": False}


class Trials(NamedTuple):
    """What all trials of a sweep share.

    Attributes:
        common: Settings of every trial, before its own values.
        alone: The same for a run outside the sweep.
    """

    common: Config
    alone: Config

    def config(self, values: Mapping[str, Any]) -> Config:
        """A trial's configuration.

        Raises:
            UserError: If the values do not fit.
        """
        config = with_changes(self.common, spelled(values))
        check(config)
        return config


def spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the command line, by which W&B's agent gives them, would understand them."""
    return {key: yaml_value(value) if isinstance(value, str) else value for key, value in values.items()}


def trials_of(sweep: Sweep, overrides: Sequence[str], recorded: Config | None = None) -> Trials:
    """A sweep's trials: the file's command, then the user's words.

    Args:
        sweep: The sweep.
        overrides: Settings from the command line.
        recorded: The configuration of a run that is replayed.

    Raises:
        UserError: If the words do not fit.
    """
    parser, words = make_parser("python -m fedpl.fit", ""), [*sweep.fixed, *overrides]
    lean = read(parser, words, with_changes(recorded or Config(), _LEAN))
    group = with_changes(lean, {"tracking.wandb.group": sweep.name})
    return Trials(group, read(parser, words, recorded))


def check_values(sweep: Sweep, trials: Trials) -> None:
    """Try every choice, and both ends and the middle of every range, with the others at their first value.

    Raises:
        UserError: Naming the parameter and the value that fedpl.fit does not take.
    """
    first = {dimension.name: dimension.samples()[0] for dimension in sweep.dimensions}
    try:
        config = trials.config(first)
    except UserError as error:
        raise UserError(f"a trial with {_words(first)}: {error}") from None
    if sweep.metric.startswith("validation") and config.evaluation.every < 1:
        raise UserError(f"evaluation.every: {sweep.metric} is never scored; set it to 1")
    task, wanted = config.task, sweep.metric.rpartition("/")[2]
    names = [metric.name for metric in (*task.metrics, *(task.decoded if task.writes else ()))]
    if wanted not in ("train_loss", *names):
        raise UserError(
            f"metric.name: {sweep.metric} is no score of {type(task).__name__}, which has {', '.join(names)}"
        )
    for dimension in sweep.dimensions:
        for value in dimension.samples()[1:]:
            try:
                trials.config(first | {dimension.name: value})
            except UserError as error:
                raise UserError(f"parameters.{dimension.name}: {value} is not accepted: {error}") from None


def number_of_trials(sweep: Sweep, asked: int | None) -> int:
    """How many trials a sweep has: as asked for, within its run_cap and its grid.

    Raises:
        UserError: If nothing limits it.
    """
    limits = [limit for limit in (asked, sweep.run_cap) if limit is not None]
    if sweep.method == "grid":
        limits.append(size_of_grid(sweep.dimensions))
    if not limits:
        raise UserError("--trials: say how many; method random and bayes have no end of their own")
    if min(limits) < 1:
        raise UserError(f"--trials: at least 1, got {asked}")
    return min(limits)


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
