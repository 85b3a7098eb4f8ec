"""Sweep files: the shipped ones under W&B's own agent, and everything that is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from fedpl.cli import make_parser, read
from fedpl.config import with_changes
from fedpl.errors import UserError
from fedpl.settings import plain
from fedpl.sweep.check import Trials, check_values, number_of_trials, spelled, trials_of
from fedpl.sweep.plan import Halving, Sweep, read_sweep, size_of_grid
from tests.made_up import REGRESSION

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "sweep").glob("*.yaml"))
PLAIN: dict[str, Any] = {
    "program": "fedpl/fit.py",
    "method": "random",
    "metric": {"name": "validation/aggregated/mean/accuracy", "goal": "maximize"},
    "parameters": {"client.lr": {"min": 0.001, "max": 0.01}},
}


def write(tmp_path: Path, **changes: Any) -> Path:
    content = {key: value for key, value in (PLAIN | changes).items() if value is not ...}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def agents_argv(path: Path, values: dict[str, Any]) -> list[str]:
    """The words after ``-m fedpl.fit`` as W&B's agent makes them from a command and a run's parameters."""
    content = yaml.safe_load(path.read_text())
    macros = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": [content["program"]]}
    words: list[str] = []
    for word in map(str, create_sweep_command(list(content["command"]))):
        macro = word.startswith("${") and word.endswith("}")
        words += macros[word[2:-1]] if macro else [word]
    assert words[:4] == ["/usr/bin/env", "python", "-m", "fedpl.fit"]
    return words[4:]


def config_of(argv: list[str]) -> Any:
    return plain(read(make_parser("fit", ""), argv))


def checked(sweep: Sweep, overrides: list[str]) -> Trials:
    trials = trials_of(sweep, overrides)
    check_values(sweep, trials)
    return trials


def test_there_is_a_file_of_every_kind() -> None:
    sweeps = [read_sweep(path) for path in FILES]
    assert {sweep.method for sweep in sweeps} == {"grid", "random", "bayes"}
    assert any(sweep.halving for sweep in sweeps)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_fit_the_program(path: Path) -> None:
    sweep = read_sweep(path)
    checked(sweep, [])
    assert path.read_text().splitlines()[0].startswith(f"# python -m fedpl.sweep configs/sweep/{path.name}")
    assert f"wandb sweep configs/sweep/{path.name}" in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_agent_of_wandb_starts_the_same_run(path: Path) -> None:
    sweep = read_sweep(path)
    values = {dimension.name: dimension.samples()[-1] for dimension in sweep.dimensions}
    ours = plain(trials_of(sweep, []).config(values))
    theirs = config_of(agents_argv(path, values))
    for settings in (ours, theirs):
        del settings["tracking"]
    assert ours == theirs


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_files_are_valid_under_wandbs_published_schema(path: Path) -> None:
    """Where W&B's own engine, the package sweeps, is installed."""
    schema = pytest.importorskip("sweeps.config.cfg")
    content = yaml.safe_load(path.read_text())
    assert list(schema.schema_violations_from_proposed_config(content)) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tracking.plots", True),
        ("tracking.plots", False),
        ("client.lr", 1e-05),
        ("lora.layers_to_transform", [0, 1]),
        ("lora.layers_to_transform", "null"),
        ("client.cohort_size", "auto"),
        ("aggregator.weighting", {"class_path": "fedpl.server.FedBip", "init_args": {"floor": 0.5}}),
        ("client", {"lr": 0.5, "epochs": 3}),
    ],
)
def test_values_of_every_kind_survive_the_agents_command_line(key: str, value: Any) -> None:
    settings: Any = config_of(agents_argv(FILES[0], {key: value}))
    here = trials_of(read_sweep(FILES[0]), []).alone
    assert settings == plain(with_changes(here, spelled({key: value})))
    for part in key.split("."):
        settings = settings[part]
    if isinstance(value, dict):
        assert settings["class_path" if "class_path" in value else "lr"] in ("fedpl.server.FedBip", 0.5)
        assert settings.get("epochs", 3) == 3
    else:
        assert settings == (None if value == "null" else value)


def test_a_file_with_little_in_it(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, project="own", metric=PLAIN["metric"] | {"target": 0.9}))
    assert (sweep.name, sweep.method, sweep.target, sweep.halving) == ("sweep", "random", 0.9, None)
    assert sweep.fixed == ("--tracking.wandb.project=own",)
    assert sweep.reached(0.9)
    assert not sweep.reached(0.89)


def test_the_commands_own_arguments_reach_every_trial(tmp_path: Path) -> None:
    command = ["python", "-m", "fedpl.fit", "--config", "configs/debug.yaml", "${args_no_equals}"]
    sweep = read_sweep(write(tmp_path, command=command))
    assert sweep.fixed == ("--config", "configs/debug.yaml")
    config = trials_of(sweep, ["--seed=3"]).config({"client.lr": 0.5})
    assert (config.rounds, config.seed, config.client.lr) == (2, 3, 0.5)
    assert config.tracking.wandb.group == "sweep"
    assert (config.baselines, config.tracking.plots) == ((), False)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"type": "hyperband", "min_iter": 3}, Halving(3, 3)),
        ({"type": "hyperband", "min_iter": 1, "eta": 2, "strict": True}, Halving(1, 2)),
        ({"type": "hyperband", "max_iter": 27, "s": 2}, Halving(3, 3)),
        ({"type": "hyperband", "max_iter": 4, "s": 5, "eta": 2}, Halving(1, 2)),
    ],
)
def test_hyperband(section: dict[str, Any], expected: Halving, tmp_path: Path) -> None:
    assert read_sweep(write(tmp_path, early_terminate=section)).halving == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "custom"}, "method: grid, random or bayes"),
        ({"metod": "grid"}, "metod: no key of a sweep"),
        ({"scheduler": {"engine": "optuna"}}, "scheduler: a scheduler of your own needs"),
        ({"job": "x"}, "job: a launch job needs"),
        ({"metrics": []}, "metrics: several objectives"),
        ({"parameters": {}}, "at least one parameter"),
        ({"parameters": {"a b": {"value": 1}}}, "no spaces"),
        ({"metric": {"name": "test/mean/aggregated/accuracy"}}, "chosen on validation data"),
        ({"metric": {"name": "validation/mean"}}, "validation/MODEL/STATISTIC/SCORE"),
        ({"metric": {"goal": "maximize"}}, "metric: name what is optimised"),
        ({"metric": PLAIN["metric"] | {"goal": "max"}}, "metric.goal"),
        ({"metric": PLAIN["metric"] | {"impute": "worst"}}, "metric.impute: not available"),
        ({"program": "train.py"}, "program: fedpl/fit.py"),
        ({"command": ["python", "train.py", "${args}"]}, "command: expected '-m', 'fedpl.fit'"),
        ({"command": ["-m", "fedpl.fit"]}, r"without \$\{args\}"),
        ({"command": ["-m", "fedpl.fit", "${args_no_boolean_flags}", "${args}"]}, "args_no_boolean_flags"),
        ({"early_terminate": {"type": "envelope"}}, "hyperband is the only one"),
        ({"early_terminate": {"type": "hyperband"}}, "give min_iter"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1.5}}, "early_terminate.eta"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 1, "strict": False}}, "strict"),
        ({"run_cap": 0}, "run_cap"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_sweep(write(tmp_path, **changes))


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_sweep(write(tmp_path, method="gird", run_cap=-1, parameters={"x": 3}))
    assert all(f"\n  {key}: " in str(caught.value) for key in ("method", "run_cap", "parameters.x"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for content, message in ((None, "cannot be read"), ("a: [", "cannot be read"), ("3", "expected keys")):
        path = tmp_path / "broken.yaml"
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=message):
            read_sweep(path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"client.lrr": {"min": 0.1, "max": 0.2}}, "did you mean 'client.lr'"),
        ({"client.lr": {"values": [0.1, -1]}}, r"parameters.client.lr: -1 is not accepted"),
        ({"client.lr": {"distribution": "normal"}}, "parameters.client.lr|a trial with client.lr"),
        ({"client.epochs": {"min": 0.5, "max": 3}}, "client.epochs"),
    ],
)
def test_parameters_that_the_program_does_not_take(
    parameters: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        checked(read_sweep(write(tmp_path, parameters=parameters)), [])


def test_a_metric_that_is_never_scored(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="evaluation"):
        checked(read_sweep(write(tmp_path)), ["--evaluation.every=0"])


def test_the_number_of_trials(tmp_path: Path) -> None:
    sweep = read_sweep(write(tmp_path, run_cap=7))
    assert [number_of_trials(sweep, asked) for asked in (None, 5, 9)] == [7, 5, 7]
    grid = {"client.lr": {"values": [1, 2]}, "client.epochs": {"min": 1, "max": 3}, "seed": {"value": 1}}
    sweep = read_sweep(write(tmp_path, method="grid", parameters=grid))
    assert size_of_grid(sweep.dimensions) == number_of_trials(sweep, None) == 6
    with pytest.raises(UserError, match="--trials: say how many"):
        number_of_trials(read_sweep(write(tmp_path)), None)
    with pytest.raises(UserError, match="at least 1"):
        number_of_trials(read_sweep(write(tmp_path)), 0)


def test_goals_follow_the_metrics_direction(tmp_path: Path) -> None:
    """Without a goal W&B minimises, which is right for an error and wrong for accuracy."""
    accuracy = {"name": "validation/aggregated/mean/accuracy"}
    for metric in (accuracy, accuracy | {"goal": "minimize"}):
        with pytest.raises(UserError, match=r"metric\.goal: .* write goal: maximize"):
            read_sweep(write(tmp_path, metric=metric))
    assert read_sweep(write(tmp_path, metric={"name": "validation/tuned/std/accuracy"})).goal == "minimize"
    error = {"name": "validation/tuned/worst/rmse"}
    assert read_sweep(write(tmp_path, metric=error), REGRESSION).goal == "minimize"
    with pytest.raises(UserError, match="write goal: minimize"):
        read_sweep(write(tmp_path, metric=error | {"goal": "maximize"}), REGRESSION)
    with pytest.raises(UserError, match="bottom_decile; rmse, pearson, got"):
        read_sweep(write(tmp_path, metric=accuracy), REGRESSION)


def test_the_metric_is_one_of_the_task_s(tmp_path: Path) -> None:
    name = "validation/aggregated/mean/mae"
    with pytest.raises(UserError, match="mae is better the other way: write goal: minimize"):
        read_sweep(write(tmp_path, metric={"name": name, "goal": "maximize"}))
    sweep = read_sweep(write(tmp_path, metric={"name": name, "goal": "minimize"}))
    with pytest.raises(UserError, match="mae is no score of Classification, which has accuracy, macro_f1"):
        checked(sweep, [])
    checked(sweep, ["--task=fedpl.tasks.Regression"])
