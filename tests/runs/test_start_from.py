"""A run that begins with another run's models: with whose, for how long, and what is refused."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import fedpl
from fedpl.cli import make_parser, read
from fedpl.compare.__main__ import main as compare
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.records.card import Card
from fedpl.replay.readings import Replayer
from fedpl.replay.recording import read_recording
from fedpl.runs.beginning import Beginning
from fedpl.runs.experiment import run
from fedpl.runs.folder import RunFolder
from fedpl.runs.prepared import prepare
from tests.conftest import small_rows, write_csv
from tests.made_up import Stopping

BEFORE, NOW = ("one-a", "left-a", "three-b"), ("new-a", "one-a", "three-b")


@pytest.fixture(scope="module")
def config(small_run: list[str]) -> Config:
    found = read(make_parser("fit", ""), small_run)
    changes = {"client.lr": 1e-2, "baselines": [], "tracking.plots": False, "tracking.progress": False}
    return with_changes(found, changes)


Make = Callable[..., fedpl.Run]


@pytest.fixture(scope="module")
def make(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Runs one of these clients."""

    def made(clients: tuple[str, ...] = NOW, base: Config = config, **changes: Any) -> fedpl.Run:
        folder = tmp_path_factory.mktemp("run")
        table = write_csv(folder / "rows.csv", small_rows(clients))
        return fedpl.run(
            with_changes(base, {"data.paths": [str(table)], **changes}), run_dir=str(folder / "run")
        )

    return made


@pytest.fixture(scope="module")
def earlier(make: Make) -> fedpl.Run:
    return make(BEFORE)


def last(run: fedpl.Run, baseline: str = "") -> dict[str, np.ndarray]:
    """The last θ̄ᵢ by client."""
    folder = RunFolder(run.path)
    own = folder.baseline(baseline) if baseline else folder.method()
    checkpoint = own.checkpoints.latest()
    assert checkpoint is not None
    return dict(zip(run.clients, np.asarray(checkpoint.state.models), strict=True))


def begun(run: fedpl.Run) -> Beginning:
    found = RunFolder(run.path).beginning()
    assert found is not None
    return found


def test_each_begins_with_its_own_and_a_new_one_with_the_mean_of_those_that_stay(
    make: Make, earlier: fedpl.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has left has no part in the mean; steps of no size leave what they began with."""
    still = {"client.lr": 1e-30, "client.head_lr": 1e-30, "client.weight_decay": 0.0, "rounds": 1}
    found = make(
        method="local", baselines=["fedbip", "fedavg", "fedper"], start_from=str(earlier.path), **still
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "(fedbip, after round 2): 2 clients with their own" in said
    assert "1 client it did not have with the mean of these 2: 'new-a'" in said
    assert "what fedavg, fedper averages begins at the mean of these 2 for all" in said
    assert "'left-a' has left; its updates stay in what 3 of 3 clients begin with" in said
    before = last(earlier)
    mean = np.mean([before[name].astype(float) for name in NOW[1:]], 0).astype(np.float32)
    wanted = {"new-a": mean, **{name: before[name] for name in NOW[1:]}}
    for name in NOW:
        np.testing.assert_array_equal(last(found)[name], wanted[name])
        np.testing.assert_array_equal(last(found, "fedbip")[name], wanted[name])
        np.testing.assert_array_equal(last(found, "fedavg")[name], mean)
    head = prepare(found.config).executor.join().layout.entries
    head = next(entry.start for entry in head if entry.kind == "head")  # fedper does not exchange it
    for name, own in last(found, "fedper").items():
        np.testing.assert_array_equal(own[head:], wanted[name][head:])
        np.testing.assert_array_equal(own[:head], mean[:head])
    card = Card.read(found.path / "adapters" / "one-a")
    assert card.begun == found.summary.begun == RunFolder(found.path).origin.begun
    assert "begun with models of" in (found.path / "adapters" / "one-a" / "README.md").read_text()
    found.report()
    assert "began with the models of" in (found.path / "report.html").read_text()


def test_another_seed_and_none_of_the_clients(make: Make, earlier: fedpl.Run) -> None:
    """What is learned is counted from the earlier θ₀, not from this seed's."""
    found = make(("x-a", "y-b"), seed=7, start_from=str(earlier.path))
    mean = np.mean([own.astype(float) for own in last(earlier).values()], 0).astype(np.float32)
    np.testing.assert_array_equal(begun(found).of(0), mean)
    np.testing.assert_array_equal(begun(found).reference, begun_reference(earlier))
    assert set(found.given.columns) == {"x-a", "y-b", *BEFORE}


def begun_reference(run: fedpl.Run) -> np.ndarray:
    checkpoint = RunFolder(run.path).method().checkpoints.latest()
    assert checkpoint is not None
    return np.asarray(checkpoint.state.reference)


@pytest.mark.parametrize("cut_in", [1, 2])
def test_resume_needs_the_earlier_run_no_more(
    make: Make, earlier: fedpl.Run, tmp_path: Path, cut_in: int
) -> None:
    """Neither before the first state is written nor later."""
    gone = shutil.copytree(earlier.path, tmp_path / "gone")
    whole = make(start_from=str(gone), baselines=["fedavg"])
    cut = with_changes(whole.config, {"run_dir": str(tmp_path / "cut")})
    with pytest.raises(KeyboardInterrupt):
        run(cut, Console(quiet=True), watchers=[Stopping(cut_in)])
    shutil.rmtree(gone)
    assert bool(list((tmp_path / "cut" / "state").glob("round-*"))) == (cut_in > 1)
    found = fedpl.go_on(tmp_path / "cut")
    assert found.summary.test == whole.summary.test
    assert found.summary.baselines == whole.summary.baselines
    assert found.summary.begun == whole.summary.begun


def test_a_run_that_has_lost_what_it_began_with_is_refused(
    make: Make, earlier: fedpl.Run, tmp_path: Path
) -> None:
    whole = make(start_from=str(earlier.path), rounds=1)
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    shutil.rmtree(copy / "state" / "start")
    other = dataclasses.replace(begun(whole), reference=begun(whole).reference + 1)
    other.write(copy / "state" / "start")  # intact, and another's
    for path in (copy / "state").glob("round-*"):
        path.unlink()
    with pytest.raises(UserError, match="no longer holds the models that the run began with"):
        fedpl.go_on(copy, rounds=2)


@pytest.mark.parametrize(
    "changes",
    [
        {"executor.kind": "processes", "executor.workers": 2, "executor.threads": 1},
        {"server.storage": "disk"},
        {"participation.fraction": 0.5},
        {"participation.fraction": 0.5, "server.storage": "disk"},
    ],
)
def test_workers_disk_and_absent_clients(make: Make, earlier: fedpl.Run, changes: dict[str, Any]) -> None:
    """An absent client keeps what it began with; else the numbers are those of one process in memory."""
    common = {"start_from": str(earlier.path), "rounds": 1, "client.cohort_size": 1, "baselines": ["fedavg"]}
    absent = {key: value for key, value in changes.items() if key.startswith("participation")}
    plainly, found = make(**common, **absent), make(**common, **changes)
    for name, own in last(found).items():
        np.testing.assert_allclose(own, last(plainly)[name], atol=1e-6)
    np.testing.assert_allclose(last(found, "fedavg")["one-a"], last(plainly, "fedavg")["one-a"], atol=1e-6)
    if absent:
        (away,) = [
            name for name, age in zip(found.clients, found.records[0].clients.age, strict=True) if age < 0
        ]
        np.testing.assert_array_equal(last(found)[away], begun(found).of(found.clients.index(away)))


@pytest.mark.parametrize("method", ["fedavg", "fedbip_g", "flora", "ditto"])
def test_replay_and_newcomers_begin_where_the_run_did(
    make: Make, earlier: fedpl.Run, tmp_path: Path, method: str
) -> None:
    """A replay ends where the run did; a newcomer's first round is what the run with it would have given."""
    common = {"start_from": str(earlier.path), "store_vectors": True, "client.cohort_size": 1}
    found = make(method=method, **common)
    assert Replayer(read_recording(found.path), prepare(found.config)).error() == 0
    few, all = (make(who, method=method, rounds=1, **common) for who in (NOW[1:], (*NOW[1:], "zero-a")))
    (joined,) = few.onboard(write_csv(tmp_path / "new.csv", small_rows(("zero-a",))))
    assert joined.scores["test"].aggregated == all.summary.clients["zero-a"].scores.aggregated
    assert joined.weights == pytest.approx(all.weights().loc["zero-a"].to_dict(), abs=1e-6)


def test_frozen_weights_that_a_method_changes_hold_what_the_clients_began_with(
    make: Make, earlier: fedpl.Run
) -> None:
    """FLoRA puts the first models into the frozen weights, FedEx what their mean misses."""
    still = {"client.lr": 1e-30, "client.head_lr": 1e-30, "client.weight_decay": 0.0, "rounds": 1}
    found = make(method="fedavg", baselines=["flora", "fedex"], start_from=str(earlier.path), **still).summary
    assert found.baselines["flora"].test.mean == found.baselines["fedex"].test.mean
    assert found.baselines["flora"].test.mean.aggregated == found.test.mean.aggregated


def test_epsilon_of_the_earlier_runs_comes_on_top(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    private = {"privacy.clip": 1.0, "privacy.noise_multiplier": 5.0, "rounds": 1}
    first = make(**private)
    spent = first.summary.privacy and first.summary.privacy.epsilon
    assert spent
    second = make(start_from=str(first.path), **private)
    assert f"ε {spent:.3g} that {first.path} spent" in " ".join(capsys.readouterr().out.split())
    third = make(start_from=str(second.path), rounds=1)
    assert third.summary.begun
    assert third.summary.begun.epsilon == pytest.approx(2 * spent)


def test_whose_updates_stay_when_a_client_leaves(make: Make, earlier: fedpl.Run) -> None:
    """Through a second run that begins with the first one's models."""
    second = make(NOW[1:], start_from=str(earlier.path))
    third = make(NOW[1:], method="local", start_from=str(second.path), rounds=1)
    assert earlier.receivers("left-a") == ["one-a", "three-b"]
    assert third.receivers("left-a") == ["one-a", "three-b"]
    row = third.given.loc["one-a"]
    assert row["left-a"] == pytest.approx(earlier.given.loc["one-a", "left-a"], abs=1e-6)
    assert "left-a" not in third.table.index
    alone = make(BEFORE, method="local")
    assert make(NOW[1:], method="local", start_from=str(alone.path)).receivers("left-a") == []


def test_all_methods_of_a_comparison_begin_with_the_same(
    config: Config, earlier: fedpl.Run, tmp_path: Path
) -> None:
    first = shutil.copytree(earlier.path, tmp_path / "first")
    own = tmp_path / "own.yaml"
    own.write_text(with_changes(config, {"start_from": str(first), "rounds": 1}).to_yaml())
    words = ["--seeds", "0", "--out", str(tmp_path / "out"), "--config", str(own), "--without_local"]
    assert compare(["--methods", "fedbip,fedavg", *words]) == 0
    digests = {fedpl.Run.open(path).summary.begun.digest for path in (tmp_path / "out").glob("*-s0")}  # type: ignore[union-attr]
    assert len(digests) == 1
    fedpl.go_on(first, rounds=3)
    with pytest.raises(UserError, match="began with other models than"):
        compare(["--methods", "fedbip,fedavg,local", *words])


def test_of_models_of_which_it_is_not_known_whose_updates_they_hold(make: Make) -> None:
    """Clients of IFCA choose among models; a run that begins with theirs says no more about them."""
    found = make(start_from=str(make(method="ifca", rounds=1).path), rounds=1)
    with pytest.raises(UserError, match="does not say whose updates those hold"):
        found.receivers("one-a")
    assert "given to others" not in found.table


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"lora.r": 3}, "another lora.r"),
        ({"model.pooling": "first"}, "another model.pooling"),
        ({"method": "ifca"}, "clients of 'ifca' choose among several models"),
        ({"baselines": ["ifca"]}, "clients of 'ifca' choose among several models"),
        ({"executor.kind": "flower"}, "sites behind Flower"),
        ({"start_from": "nowhere"}, "nowhere holds no run"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    config: Config, earlier: fedpl.Run, changes: dict[str, Any], what: str
) -> None:
    with pytest.raises(UserError, match=what):
        fedpl.run(with_changes(config, {"start_from": str(earlier.path), **changes}), model__path="/nowhere")


def test_earlier_runs_that_do_not_fit_are_refused(
    config: Config, make: Make, earlier: fedpl.Run, small_model: Path, tmp_path: Path
) -> None:
    open = shutil.copytree(earlier.path, tmp_path / "open")
    (open / "summary.json").unlink()
    with pytest.raises(UserError, match="is not finished"):
        make(start_from=str(open))
    with pytest.raises(UserError, match="on frozen weights that 'flora' has changed"):
        make(start_from=str(make(method="flora", rounds=1).path))
    other = shutil.copytree(small_model, tmp_path / "model")
    (other / "model.safetensors").write_bytes(other.joinpath("model.safetensors").read_bytes() + b" ")
    with pytest.raises(UserError, match="a frozen model with other weights"):
        make(start_from=str(earlier.path), model__path=str(other))
    rows = [{**row, "label": row["label"].upper()} for row in small_rows(NOW)]
    with pytest.raises(UserError, match="has the classes 'no', 'yes', these data 'NO', 'YES'"):
        make(start_from=str(earlier.path), **{"data.paths": [str(write_csv(tmp_path / "other.csv", rows))]})
    assert not (tmp_path / "run").exists()
