"""A run that is cut off anywhere goes on to the same end."""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fedpl
from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.config import ClientConfig, Config, with_changes
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.fit import main
from fedpl.records.messages import Company
from fedpl.replay.__main__ import main as replay
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult
from fedpl.runs import adapters, experiment
from fedpl.runs.folder import MethodFolder, RunFolder
from fedpl.runs.resume import refuse_changes
from fedpl.runs.standing import Clock, Standing
from fedpl.server import Aggregator, BestOf, FactorWise, Residual, SameChoice, Uniform

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """The process ends here."""


def standing(federation: Federation, folder: Path, rounds: int = 4) -> Standing:
    folder.mkdir(exist_ok=True)
    disk = None if federation.disk is None else folder
    federation = dataclasses.replace(federation, folder=folder / "memory", disk=disk)
    away = federation.participation.fraction < 1 or federation.executor.faults.settings.lost > 0
    return Standing(federation, rounds, MethodFolder(folder), Clock(), keeps_vectors=away)


HALF = ParticipationConfig(fraction=0.5)
CONDITIONS = {
    "everybody": {},
    "partial": {"participation": HALF},
    "stale": {"participation": HALF, "aggregator": Aggregator(stale_discount=0.5)},
    "one for all": {
        "participation": HALF,
        "aggregator": Aggregator(weighting=Uniform(), server_momentum=0.5),
    },
    "residual": {"aggregator": Aggregator(weighting=Uniform(), combine=Residual())},
    "models": {
        "aggregator": Aggregator(
            weighting=SameChoice(), receive=BestOf(spread=0.5), combine=FactorWise("models")
        )
    },
    "faulty": {"faults": FaultsConfig(lost=0.2, late=0.2, hostile=0.3, attack="gaussian"), "seed": 1},
    "private": {"privacy": PrivacyConfig(clip=1.0)},
    "disk": {"participation": HALF, "disk": Path()},
    "stale on disk": {
        "participation": HALF,
        "aggregator": Aggregator(stale_discount=0.5, granularity="block"),
        "disk": Path(),
    },
    "residual on disk": {
        "aggregator": Aggregator(weighting=Uniform(), combine=Residual()),
        "disk": Path(),
    },
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_cut_off_after_any_client_it_ends_as_if_it_had_not_been(
    condition: str, toy: Callable[..., Federation], tmp_path: Path
) -> None:
    """Rounding depends on the company in which a client trains: the company is the same again."""
    fields = CONDITIONS[condition]
    heard: list[bytes] = []
    expected = standing(toy(**fields), tmp_path / "whole").finish(
        lambda result: heard.append(np.asarray(result.state.personal).tobytes())
    )
    work = toy(**fields)
    standing(work, tmp_path / "count").finish(lambda result: None)
    for cut in range(1, len(work.executor.trained) + 1, 2):
        folder = tmp_path / f"cut-{cut}"
        first = toy(**fields)

        def die(job, row, first=first, cut=cut):  # type: ignore[no-untyped-def]
            if len(first.executor.trained) == cut:
                raise Killed

        first.executor.sabotage = die
        again: list[bytes] = []

        def hear(result: RoundResult, again: list[bytes] = again) -> None:
            del again[result.round - 1 :]
            again.append(np.asarray(result.state.personal).tobytes())

        with pytest.raises(Killed):
            standing(first, folder).finish(hear)
        # The machine has other memory now: what was chosen by it must not matter.
        second = toy(size=5, **fields)
        assert standing(second, folder).finish(hear) == expected
        assert again == heard
        done = len(first.executor.trained) + len(second.executor.trained)
        assert done <= len(work.executor.trained) + 2, "only the open group is trained again"


def test_a_damaged_newest_state_costs_one_round(
    toy: Callable[..., Federation], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = standing(toy(), tmp_path / "whole").finish(lambda result: None)
    newest = tmp_path / "whole" / "round-000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-3])
    second = toy()
    assert standing(second, tmp_path / "whole").finish(lambda result: None) == expected
    assert {round for round, _ in second.executor.trained} == {4}
    assert "going back to the state before it" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_damaged_result_is_made_again(share: float, toy: Callable[..., Federation], tmp_path: Path) -> None:
    """The last state alone does not say how the last round was scored: the round is done again."""
    expected = standing(toy(), tmp_path / "whole").finish(lambda result: None)
    path = tmp_path / "whole" / "result.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    second = toy()
    assert standing(second, tmp_path / "whole").finish(lambda result: None) == expected
    assert {round for round, _ in second.executor.trained} == {4}
    assert path.read_bytes() == whole


def test_a_finished_method_is_not_run_again(toy: Callable[..., Federation], tmp_path: Path) -> None:
    expected = standing(toy(), tmp_path / "whole").finish(lambda result: None)
    second = toy()
    assert standing(second, tmp_path / "whole").finish(lambda result: None) == expected
    assert second.executor.trained == []


def test_more_rounds_equal_a_longer_run(toy: Callable[..., Federation], tmp_path: Path) -> None:
    expected = standing(toy(), tmp_path / "long", 4).finish(lambda result: None)
    standing(toy(), tmp_path / "short", 2).finish(lambda result: None)
    assert standing(toy(), tmp_path / "short", 4).finish(lambda result: None) == expected
    with pytest.raises(UserError, match="rounds is 3, but 4 are done"):
        standing(toy(), tmp_path / "short", 3).finish(lambda result: None)


def test_a_method_starts_with_clients_that_remember_nothing(
    toy: Callable[..., Federation], tmp_path: Path
) -> None:
    federation = toy()
    first = standing(federation, tmp_path / "one").finish(lambda result: None)
    assert standing(federation, tmp_path / "two").finish(lambda result: None) == first


def lines(*rounds: int) -> bytes:
    return b"".join(json.dumps({"round": round}).encode() + b"\n" for round in rounds)


@pytest.mark.parametrize("rest", [b"", b'{"rou', b'{"round": 3}', lines(3), lines(3, 4)])
def test_metrics_are_cut_back_to_the_state(rest: bytes, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(lines(1, 2) + rest)
    folder.cut_metrics(2, hashlib.blake2b(lines(1, 2), digest_size=16).hexdigest())
    assert folder.metrics.read_bytes() == lines(1, 2)


@pytest.mark.parametrize(
    "content", [b"", lines(1), lines(1, 3), lines(1) + b'{"round": 2}', lines(1) + b"[]\n"]
)
def test_metrics_that_lack_a_round_of_the_state(content: bytes, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(content)
    with pytest.raises(UserError, match="does not hold the rounds 1 to 2"):
        folder.cut_metrics(2, "")


SAVED = Config(rounds=5, client=ClientConfig(lr=0.1, epochs=2))


def test_more_rounds_and_other_tracking_are_allowed() -> None:
    changes = {"rounds": 6, "tracking.plots": False, "tracking.progress": False, "run_dir": "elsewhere"}
    refuse_changes(SAVED, with_changes(SAVED, changes))


def test_more_rounds_are_refused_where_learning_rates_depend_on_their_number() -> None:
    over_run = {"client.schedule_over": "run"}
    refuse_changes(with_changes(SAVED, over_run), with_changes(SAVED, {**over_run, "rounds": 6}))
    falling = with_changes(SAVED, {**over_run, "client.schedule": "linear"})
    with pytest.raises(UserError, match=r"rounds 5 → 6 with client\.schedule_over: run"):
        refuse_changes(falling, with_changes(falling, {"rounds": 6}))
    refuse_changes(falling, falling)
    anew = with_changes(falling, {"client.schedule_over": "round"})
    refuse_changes(anew, with_changes(anew, {"rounds": 6}))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rounds": 4}, ["rounds 5 → 4"]),
        ({"client.lr": 0.2, "client.epochs": 3}, ["client.epochs 2 → 3", "client.lr 0.1 → 0.2"]),
        ({"data": "fedpl.data.HubText"}, ["data.class_path 'fedpl.data.Tweets' → 'fedpl.data.HubText'"]),
        ({"client.per_client": {"a": {"rate": 0.5}}}, ["client.per_client.a.rate (not there) → 0.5"]),
        ({"method": "fedbip_l"}, ["name 'fedbip' → 'fedbip_l'", "aggregator.granularity 'model' → 'block'"]),
    ],
)
def test_other_changes_are_refused_by_name(changes: dict[str, object], named: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        refuse_changes(SAVED, with_changes(SAVED, changes))
    assert all(change in str(raised.value) for change in named)
    assert "\n" not in str(raised.value)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        run_main(lambda: main(arguments))
    assert leaving.value.code == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def short(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run of two rounds and the arguments that made it."""
    arguments = [
        *small_run,
        "--client.cohort_size=2",
        "--tracking.plots=false",
        "--baselines=[fedavg]",
        "--participation.fraction=0.7",
    ]
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main([*arguments, f"--run_dir={folder}"]) == 0
    return folder, arguments


def without_seconds(folder: Path) -> dict:
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]
    return summary


def test_a_finished_run_can_be_resumed_and_stays_the_same(
    short: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = short
    before = without_seconds(folder)
    (folder / "summary.json").unlink()
    monkeypatch.setattr(
        "fedpl.training.stacked.backend.fit_cohort", lambda *_: pytest.fail("nothing is to be trained")
    )
    assert main([f"--resume={folder}"]) == 0
    assert without_seconds(folder) == before
    assert "goes on after round 2" in capsys.readouterr().out


def test_a_longer_run_is_the_same_as_one_that_was_asked_for_at_once(
    short: tuple[Path, list[str]], tmp_path: Path
) -> None:
    _, arguments = short
    for name in ("short", "long"):
        main([*arguments, f"--run_dir={tmp_path / name}", f"--rounds={1 if name == 'short' else 3}"])
    main(["--resume", str(tmp_path / "short"), "--rounds=3"])
    assert without_seconds(tmp_path / "short") == without_seconds(tmp_path / "long")
    assert "rounds: 3" in (tmp_path / "short" / "config.yaml").read_text()


def test_a_run_that_is_reopened_has_no_summary_until_it_ends(
    short: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arguments = short
    folder = tmp_path / "run"
    main([*arguments, f"--run_dir={folder}", "--rounds=1"])
    assert (folder / "summary.json").exists()

    def die() -> None:
        raise Killed

    with pytest.raises(Killed):
        watched([f"--resume={folder}", "--rounds=2"], Stopping(2, die), monkeypatch)
    assert not (folder / "summary.json").exists()


def test_a_changed_setting_is_refused_and_nothing_is_touched(
    short: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = short
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    message = refused([f"--resume={folder}", "--client.lr=0.5", "--aggregator.granularity=block"], capsys)
    assert "aggregator.granularity 'model' → 'block'; client.lr 0.002 → 0.5" in message
    assert message.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_folder_that_holds_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert "holds no run (there is no config.yaml" in refused([f"--resume={folder}"], capsys)


FOREIGN = """
from dataclasses import dataclass
from pathlib import Path

from fedpl.server import Uniform

Path(__file__).with_name("ran").touch()


@dataclass(frozen=True)
class Mine(Uniform):
    pass
"""


@pytest.mark.parametrize("form", ["{class_path: foreign_rules.Mine}", "foreign_rules.Mine"])
@pytest.mark.parametrize("command", ["resume", "replay", "open", "load"])
def test_a_run_directory_gets_no_code_imported(
    command: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "foreign_rules.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (run / "adapters" / "a").mkdir(parents=True)
    key = "task" if command == "load" else "aggregator: {weighting"
    # No rounds: nothing is trained if it gets by.
    (run / "config.yaml").write_text(f"rounds: 0\n{key}: {form}{'' if command == 'load' else '}'}\n")
    (run / "adapters" / "a" / "fedpl.json").write_text("{}")
    commands: dict[str, Callable[[], object]] = {
        "resume": lambda: main([f"--resume={run}"]),
        "replay": lambda: replay([str(run)]),
        "open": lambda: fedpl.Run.open(run),
        "load": lambda: adapters.task_of(run),
    }
    with pytest.raises(UserError, match=r"is 'foreign_rules\.Mine', code .*--import foreign_rules"):
        commands[command]()
    assert not (tmp_path / "ran").exists()


def test_what_the_user_imports_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trusted_rules.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "config.yaml").write_text("aggregator: {weighting: trusted_rules.Mine}\n")
    with pytest.raises(UserError, match="has no task vectors"):
        replay([str(tmp_path), "--import=trusted_rules"])
    assert type(fedpl.Run.open(tmp_path).config.aggregator.weighting).__name__ == "Mine"
    with pytest.raises(UserError, match="--import: No module named 'not_there'"):
        main([f"--resume={tmp_path}", "--import", "not_there"])


def test_the_last_round_does_not_stay_open(toy: Callable[..., Federation], tmp_path: Path) -> None:
    """A kill between the last state and the journal's end left it for good."""
    method = standing(toy(), tmp_path)
    expected = method.finish(lambda result: None)
    method.folder.journal.open(4, Company((("a",),), {}))
    assert (tmp_path / "open").exists()
    assert standing(toy(), tmp_path).finish(lambda result: None) == expected
    assert not (tmp_path / "open").exists()


def test_resuming_is_explained() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedpl.fit", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "--resume RUN_DIR" in done.stdout


class Stopping:
    """A watcher that does something after a round has been recorded."""

    def __init__(self, round: int, what: Callable[[], object]) -> None:
        self.at, self.what = round, what

    def round(self, record: dict, result: RoundResult) -> None:
        if result.round == self.at:
            self.what()

    def finish(self, summary: dict) -> None: ...


def watched(arguments: list[str], watcher: Stopping, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run as the command line does, with a watcher."""
    inner = experiment.run
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "run", lambda *a, **k: inner(*a, **k | {"watchers": [watcher]}))
        return main(arguments)


def test_a_full_disk_ends_the_run_in_one_line_and_it_can_go_on(
    short: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, arguments = short

    def fill() -> None:
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        watched([*arguments, f"--run_dir={tmp_path / 'run'}"], Stopping(2, fill), monkeypatch)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert main([f"--resume={tmp_path / 'run'}"]) == 0
    assert without_seconds(tmp_path / "run") == without_seconds(folder)


def test_a_run_directory_that_vanishes_is_named(
    short: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arguments = short
    away = Stopping(1, lambda: shutil.rmtree(tmp_path / "run"))
    with pytest.raises(UserError, match=r"run was removed while the run was going on") as raised:
        watched([*arguments, f"--run_dir={tmp_path / 'run'}"], away, monkeypatch)
    assert "\n" not in str(raised.value)


def test_the_wandb_run_goes_on_under_its_id(
    short: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline, the second process writes a folder of its own for the same run, with new rounds only."""
    _, arguments = short
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main([*arguments, "--rounds=1", f"--run_dir={tmp_path / 'run'}"]) == 0
    time.sleep(1.1)  # W&B names offline folders by the second
    assert main([f"--resume={tmp_path / 'run'}", "--rounds=2"]) == 0
    id = (tmp_path / "run" / "state" / "wandb-id").read_text()
    logs = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert [log.name.rsplit("-", 1)[1] for log in logs] == [id, id]
    pictures = [len(list(log.glob("files/media/images/**/*.png"))) for log in logs]
    assert pictures == [1, 1]


@pytest.mark.parametrize(("owner", "step"), [(shutil, "rmtree"), (Path, "unlink")])
def test_what_is_left_when_it_is_killed_while_it_clears_up_goes(
    owner: object,
    step: str,
    toy: Callable[..., Federation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last state is written then, and no round is left that would clear up."""
    standing(toy(), tmp_path / "whole", 3).finish(lambda result: None)
    whole = sorted(path.name for path in (tmp_path / "whole").iterdir())

    def die(*_: object, **named: object) -> None:
        raise Killed

    def heard(result: RoundResult) -> None:
        if result.round == 3:
            monkeypatch.setattr(owner, step, die)

    with pytest.raises(Killed):
        standing(toy(), tmp_path / "run", 3).finish(heard)
    monkeypatch.undo()
    assert len(list((tmp_path / "run").iterdir())) > len(whole)
    standing(toy(), tmp_path / "run", 3).finish(lambda result: None)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == whole
