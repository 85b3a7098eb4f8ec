"""The search: a trial's values and when it is cut short, by optuna, in a file that survives a kill."""

import json
import warnings
from itertools import islice, product
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, Trial, TrialState

from fedpl.errors import UserError
from fedpl.randomness import derive_seed
from fedpl.sweep.plan import Sweep
from fedpl.sweep.space import Dimension

FILE = "study.db"
_NAME = "sweep"
_PLAN = "plan"

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def open_study(folder: Path, sweep: Sweep, plan: dict[str, Any]) -> optuna.Study:
    """The study of a sweep's directory, made if it is not there.

    Args:
        folder: The sweep's directory.
        sweep: The sweep.
        plan: What has to be the same for the study to go on.

    Raises:
        UserError: If the directory holds another sweep.
    """
    study = optuna.create_study(
        storage=_storage(folder),
        study_name=_NAME,
        direction=sweep.goal,
        pruner=_pruner(sweep),
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=True,
    )
    text = json.dumps(plan, sort_keys=True)
    before = study.user_attrs.get(_PLAN)
    if before is None:
        study.set_user_attr(_PLAN, text)
    elif before != text:
        old = json.loads(before)
        different = [key for key in plan if old.get(key) != plan[key]]
        raise UserError(
            f"--out: {folder} holds a sweep with another {', '.join(different)}; name a new folder"
        )
    return study


def reopen(folder: Path, sweep: Sweep) -> optuna.Study:
    """The study for another process that follows one trial."""
    sampler = optuna.samplers.RandomSampler()
    return optuna.load_study(
        study_name=_NAME, storage=_storage(folder), sampler=sampler, pruner=_pruner(sweep)
    )


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    if sweep.halving is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(sweep.halving.min_iter, sweep.halving.eta)


def _storage(folder: Path) -> optuna.storages.RDBStorage:
    # Processes that find the file locked wait for their turn.
    options = {"connect_args": {"timeout": 120}}
    return optuna.storages.RDBStorage(f"sqlite:///{(folder / FILE).resolve()}", engine_kwargs=options)


def running(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that were under way when the sweep was stopped."""
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def begun(study: optuna.Study) -> int:
    """Number of trials that are finished or under way."""
    return len(study.trials) - len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def enqueue_grid(study: optuna.Study, sweep: Sweep, trials: int) -> None:
    """Put the points of a grid in line, in the order of the file's last parameter first, up to a number."""
    grids = [range(len(dimension.grid())) for dimension in sweep.dimensions]
    for point in islice(product(*grids), len(study.trials), trials):
        names = (dimension.name for dimension in sweep.dimensions)
        study.enqueue_trial(dict(zip(names, point, strict=True)))


def ask(study: optuna.Study, sweep: Sweep, seed: int) -> FrozenTrial:
    """The next trial, with its values: see :func:`drawn`."""
    return drawn(study, sweep, seed, study.ask().number)


def drawn(study: optuna.Study, sweep: Sweep, seed: int, number: int) -> FrozenTrial:
    """A trial with all of its values, also where the sweep was killed before it had drawn them.

    A random value is a function of (seed, trial, parameter): neither an interruption nor the order in which
    parallel trials end changes what a random search tries.

    Args:
        study: The study.
        sweep: The sweep.
        seed: Seed of the search.
        number: Number of the trial.
    """
    if sweep.method == "bayes":
        study.sampler = optuna.samplers.TPESampler(
            n_startup_trials=4 + len(sweep.dimensions) // 2,
            multivariate=True,
            constant_liar=True,
            seed=derive_seed(seed, "sweep", number) % 2**32,
        )
    trial = Trial(study, study.trials[number]._trial_id)
    _ = trial.relative_params  # drawn together, by the guided sampler; what it leaves out is drawn at random
    for dimension in sweep.dimensions:
        own = derive_seed(seed, "sweep", number, dimension.name) % 2**32
        study.sampler = optuna.samplers.RandomSampler(seed=own)
        trial._suggest(dimension.name, _distribution(dimension, sweep.method))
    return study.trials[number]


def _distribution(dimension: Dimension, method: str) -> BaseDistribution:
    """Places among choices, or a quantile: every other distribution is a function of one."""
    choices = dimension.grid() if method == "grid" else dimension.choices
    if choices is not None:
        return CategoricalDistribution(list(range(len(choices))))
    if dimension.distribution == "int_uniform":
        return IntDistribution(dimension.spec["min"], dimension.spec["max"])
    return FloatDistribution(0.0, 1.0)


def values(trial: FrozenTrial, sweep: Sweep) -> dict[str, Any]:
    """What a trial sets, by dotted key, in the order of the file."""
    found = {}
    for dimension in sweep.dimensions:
        drawn = trial.params[dimension.name]
        choices = dimension.grid() if sweep.method == "grid" else dimension.choices
        if choices is not None:
            found[dimension.name] = choices[drawn]
        else:
            found[dimension.name] = drawn if dimension.distribution == "int_uniform" else dimension.at(drawn)
    return found


class Pruner:
    """Tells the study a trial's validation score round by round, and asks whether to go on.

    Args:
        study: The study; other processes may be working on it.
        number: Number of the trial.
    """

    def __init__(self, study: optuna.Study, number: int) -> None:
        self._trial = Trial(study, study.trials[number]._trial_id)
        self._told = set(study.trials[number].intermediate_values)

    def report(self, round: int, value: float) -> None:
        """Take a round's score; one that is known from before an interruption stays as it is."""
        if round not in self._told:
            self._trial.report(value, round)

    def cut(self) -> bool:
        """Whether the trial is not among the best at this round."""
        return self._trial.should_prune()


def tell(study: optuna.Study, number: int, state: str, value: float | None, notes: dict[str, Any]) -> None:
    """Record a finished trial.

    Args:
        study: The study.
        number: Number of the trial.
        state: complete, pruned or failed.
        value: The metric, for a complete trial.
        notes: What else is to be remembered of it.
    """
    storage, trial = study._storage, study.trials[number]
    for key, note in notes.items():
        storage.set_trial_user_attr(trial._trial_id, key, note)
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    study.tell(number, value if state == "complete" else None, state=states[state])


def importances(study: optuna.Study, sweep: Sweep) -> dict[str, float]:
    """Share of each parameter in what explains the metric (fANOVA), empty where too little varies."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = [d.name for d in sweep.dimensions if len({trial.params[d.name] for trial in complete}) > 1]
    if len(complete) < 4 or not varied or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=varied)
    return {name: float(value) for name, value in found.items()}
