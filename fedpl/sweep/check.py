"""Whether a sweep's trials will be accepted by fedpl.fit, asked before the first one runs."""

from collections.abc import Sequence
from typing import Any

from fedpl.cli import invocation, make_parser
from fedpl.errors import UserError
from fedpl.sweep.plan import Sweep, arguments, size_of_grid

# A trial needs neither baselines nor pictures; what follows on the command line may ask for them.
_LEAN = ("--baselines=[]", "--tracking.plots=false", "--tracking.progress=false")


def trial_arguments(sweep: Sweep, overrides: Sequence[str], values: dict[str, Any]) -> list[str]:
    """The arguments of a trial for fedpl.fit: the file's, the user's, then the trial's values."""
    group = f"--tracking.wandb.group={sweep.name}"
    return [*_LEAN, *sweep.fixed, *overrides, *arguments(values), group]


def best_arguments(sweep: Sweep, overrides: Sequence[str], values: dict[str, Any]) -> list[str]:
    """The same for a run outside the sweep."""
    return [*sweep.fixed, *overrides, *arguments(values)]


def check_arguments(sweep: Sweep, overrides: Sequence[str]) -> None:
    """Try every choice, and both ends and the middle of every range, with the others at their first value.

    Raises:
        UserError: Naming the parameter and the value that fedpl.fit does not take.
    """
    parser = make_parser("python -m fedpl.fit", "")
    first = {dimension.name: dimension.samples()[0] for dimension in sweep.dimensions}
    try:
        config = invocation(parser, trial_arguments(sweep, overrides, first)).config
    except UserError as error:
        raise UserError(f"a trial with {_words(first)}: {error}") from None
    if sweep.metric.startswith("validation") and config.evaluation.every < 1:
        raise UserError(f"evaluation.every: {sweep.metric} is never scored; set it to 1")
    for dimension in sweep.dimensions:
        for value in dimension.samples()[1:]:
            try:
                invocation(parser, trial_arguments(sweep, overrides, first | {dimension.name: value}))
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
