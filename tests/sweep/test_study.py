"""The search itself, on a formula instead of training: what is tried, what is cut, what survives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")

from fedpl.config import Config  # noqa: E402
from fedpl.errors import UserError  # noqa: E402
from fedpl.files import held  # noqa: E402
from fedpl.sweep import drive  # noqa: E402
from fedpl.sweep.check import Trials  # noqa: E402
from fedpl.sweep.outcome import Outcome  # noqa: E402
from fedpl.sweep.plan import Halving, Sweep  # noqa: E402
from fedpl.sweep.space import read_space  # noqa: E402
from fedpl.sweep.study import Pruner, enqueue_grid, importances, open_study, running, values  # noqa: E402

RANGES = {"x": {"min": -1.0, "max": 1.0}, "n": {"min": 1, "max": 9}, "kind": {"values": ["a", "b"]}}


def sweep_of(method: Any, parameters: dict[str, Any], halving: Halving | None = None) -> Sweep:
    dimensions, wrong = read_space(parameters, method)
    assert wrong == []
    metric = "validation/aggregated/mean/accuracy"
    return Sweep("s", method, metric, "maximize", None, tuple(dimensions), (), halving, None)


def formula(found: dict[str, Any]) -> float:
    """Best at x = 0.3, n = 1, kind = b."""
    return -((found["x"] - 0.3) ** 2) - 0.001 * found["n"] + 0.5 * (found["kind"] == "b")


def judge(task: drive.Task, study: Any) -> Outcome:
    return Outcome("complete", formula(task.values), 1, 0.1)


def search(
    folder: Path | None, sweep: Sweep, trials: int, runner: Callable[..., Outcome] = judge, seed: int = 0
) -> Any:
    """Run a search in a directory, or in memory alone."""
    if folder is None:
        study = optuna.create_study(direction=sweep.goal)
    else:
        folder.mkdir(exist_ok=True)
        study = open_study(folder, sweep, {"sweep": repr(sweep)})
    work = drive.tasks(study, sweep, folder or Path(), trials, seed, Trials(Config(), Config()))
    drive.run_here(study, work, runner, lambda task, outcome: None)
    return study


def tried(study: Any, sweep: Sweep) -> list[dict[str, Any]]:
    return [values(trial, sweep) for trial in study.trials]


class Killed(BaseException):
    """As sudden as a signal."""


def killed_at(number: int) -> Callable[..., Outcome]:
    def runner(task: drive.Task, study: Any) -> Outcome:
        if task.number == number:
            raise Killed
        return judge(task, study)

    return runner


def test_a_grid_visits_every_point_once() -> None:
    grid = {
        "x": {"values": [0.1, 0.2]},
        "n": {"min": 1, "max": 3},
        "kind": {"values": [["a"], "b"]},
        "c": {"value": 7},
    }
    sweep = sweep_of("grid", grid)
    found = tried(search(None, sweep, 12), sweep)
    assert len({str(point) for point in found}) == len(found) == 12
    assert found[0] == {"x": 0.1, "n": 1, "kind": ["a"], "c": 7}
    assert found[1]["kind"] == "b", "the file's last parameter changes first"


def test_more_of_a_grid_later(tmp_path: Path) -> None:
    sweep = sweep_of(
        "grid", {"x": {"values": [0.1, 0.2, 0.3]}, "n": {"values": [1, 2]}, "kind": {"value": "a"}}
    )
    search(tmp_path / "s", sweep, 2)
    study = search(tmp_path / "s", sweep, 6)
    assert len({str(point) for point in tried(study, sweep)}) == 6
    enqueue_grid(study, sweep, 6)
    assert len(study.trials) == 6


@pytest.mark.parametrize("method", ["random", "bayes", "grid"])
def test_a_killed_search_loses_nothing_and_ends_as_if_it_had_not_been(method: str, tmp_path: Path) -> None:
    parameters = RANGES if method != "grid" else {**RANGES, "x": {"values": [0.0, 0.3]}}
    sweep = sweep_of(method, parameters)
    whole = search(tmp_path / "whole", sweep, 7)
    with pytest.raises(Killed):
        search(tmp_path / "killed", sweep, 7, killed_at(5))
    left = open_study(tmp_path / "killed", sweep, {"sweep": repr(sweep)})
    finished = [trial for trial in left.trials if trial.state.is_finished()]
    assert [trial.number for trial in finished] == [0, 1, 2, 3, 4]
    assert [trial.number for trial in running(left)] == [5]
    again = search(tmp_path / "killed", sweep, 7)
    assert tried(again, sweep) == tried(whole, sweep)
    assert [trial.value for trial in again.trials] == [trial.value for trial in whole.trials]
    assert [t.datetime_complete for t in again.trials[:5]] == [t.datetime_complete for t in finished]


@pytest.mark.parametrize("method", ["random", "bayes", "grid"])
@pytest.mark.parametrize("values_drawn", [0, 1, 2])
def test_a_trial_killed_while_its_values_were_drawn(
    method: str, values_drawn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial stands in the file without all of its values; the next start draws the same ones."""
    parameters = RANGES if method != "grid" else {**RANGES, "x": {"values": [0.0, 0.3]}}
    sweep = sweep_of(method, parameters)
    whole = search(tmp_path / "whole", sweep, 8)
    storage = optuna.storages._cached_storage._CachedStorage
    write, left = storage.set_trial_param, iter(range(3 * 6 + values_drawn))

    def killed(*arguments: Any) -> None:
        if next(left, None) is None:
            raise Killed
        write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "set_trial_param", killed)
        with pytest.raises(Killed):
            search(tmp_path / "killed", sweep, 8)
    (half,) = running(open_study(tmp_path / "killed", sweep, {"sweep": repr(sweep)}))
    assert (half.number, len(half.params)) == (6, values_drawn)
    assert tried(search(tmp_path / "killed", sweep, 8), sweep) == tried(whole, sweep)


def test_the_seed_decides_what_is_tried() -> None:
    sweep = sweep_of("random", RANGES)
    first, same, other = (tried(search(None, sweep, 4, seed=seed), sweep) for seed in (0, 0, 1))
    assert first == same != other
    assert len({str(point) for point in first}) == 4


def test_a_guided_search_finds_more_than_a_random_one() -> None:
    parameters = {"x": {"min": -30.0, "max": 30.0}, "n": {"value": 1}, "kind": {"values": list("abcdef")}}
    best = {}
    for method in ("random", "bayes"):
        sweep = sweep_of(method, parameters)
        best[method] = sum(search(None, sweep, 40, seed=seed).best_value for seed in range(3))
    assert best["bayes"] > best["random"]


def test_no_trial_begins_after_the_target_is_reached() -> None:
    from dataclasses import replace

    sweep = replace(sweep_of("random", RANGES), target=0.4)
    study = search(None, sweep, 50)
    assert len(study.trials) < 50
    assert study.trials[-1].value >= 0.4
    assert all(trial.value < 0.4 for trial in study.trials[:-1])


def test_halving_cuts_what_is_not_among_the_best(tmp_path: Path) -> None:
    scores = iter([0.5, 0.4, 0.6, 0.3, 0.7])
    rounds = {}

    def runner(task: drive.Task, study: Any) -> Outcome:
        pruner, score = Pruner(study, task.number), next(scores)
        for round in (1, 2, 3):
            rounds[task.number] = round
            pruner.report(round, score)
            if round < 3 and pruner.cut():
                return Outcome("pruned", score, round, 0.1)
        return Outcome("complete", score, 3, 0.1)

    sweep = sweep_of("random", RANGES, Halving(1, 2))
    study = search(tmp_path / "s", sweep, 5, runner)
    assert [trial.state.name for trial in study.trials] == [
        "COMPLETE",
        "PRUNED",
        "COMPLETE",
        "PRUNED",
        "COMPLETE",
    ]
    assert [rounds[number] for number in range(5)] == [3, 1, 3, 1, 3]


def test_failed_trials_are_told_apart(tmp_path: Path) -> None:
    def runner(task: drive.Task, study: Any) -> Outcome:
        if task.number == 1:
            return Outcome("failed", None, 0, 0.1, "does not fit")
        return judge(task, study)

    study = search(tmp_path / "s", sweep_of("random", RANGES), 4, runner)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert study.trials[1].user_attrs["message"] == "does not fit"


def test_importance_names_what_matters() -> None:
    sweep = sweep_of("random", RANGES)
    found = importances(search(None, sweep, 30), sweep)
    assert max(found, key=lambda name: found[name]) in ("x", "kind")
    assert found["n"] < 0.1
    assert importances(search(None, sweep, 2), sweep) == {}


def test_a_directory_of_another_sweep(tmp_path: Path) -> None:
    search(tmp_path / "s", sweep_of("random", RANGES), 1)
    with pytest.raises(UserError, match="another sweep"):
        search(tmp_path / "s", sweep_of("random", {**RANGES, "x": {"value": 1}}), 1)


def test_two_processes_do_not_share_a_sweep(tmp_path: Path) -> None:
    with (
        held(tmp_path),
        pytest.raises(UserError, match="another process"),
        held(tmp_path),
    ):
        pass
    with held(tmp_path):
        pass
