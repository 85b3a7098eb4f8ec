"""W&B without a server: the mode it chooses, and what an offline run holds."""

from pathlib import Path

import pytest
import wandb

from fedpl.config import WandbConfig
from fedpl.fit import main
from fedpl.tracking.session import asked_id, choose_mode, logged_in
from fedpl.tracking.weights_and_biases import WandbTracker
from tests.made_up import record, summary
from tests.tracking.rounds import rounds_result

pytestmark = pytest.mark.usefixtures("stranger")


@pytest.mark.parametrize(
    ("environment", "setting", "expected"),
    [
        ("", "auto", "offline"),
        ("online", "auto", "online"),
        ("disabled", "auto", "disabled"),
        ("dryrun", "auto", "offline"),
        ("nonsense", "auto", "offline"),
        ("online", "offline", "offline"),
        ("disabled", "online", "online"),
    ],
)
def test_the_setting_wins_over_the_environment(
    environment: str, setting: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("WANDB_MODE", environment)
    assert choose_mode(WandbConfig(mode=setting)) == expected


def test_logged_in_means_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine elsewhere.org login user password key\n")
    assert not logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert logged_in()
    assert choose_mode(WandbConfig()) == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://elsewhere.org:8080")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()


def begun(folder: Path, config: WandbConfig | None = None) -> WandbTracker:
    return WandbTracker(config or WandbConfig(), folder, {}, "an-id", 10)


def test_online_without_a_login_records_offline_and_never_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = begun(tmp_path, WandbConfig(mode="online"))
    assert tracker.run.offline
    assert "not logged in" in capsys.readouterr().err


def test_a_key_that_is_none_means_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    tracker = begun(tmp_path)
    assert tracker.run.offline
    assert tracker.run.id == "an-id"
    assert "40+ characters, has 5.): recording offline" in capsys.readouterr().err


def test_the_environment_names_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"PROJECT": "p", "NAME": "n", "TAGS": "t,u", "RUN_GROUP": "g", "ENTITY": "e"}
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run = begun(tmp_path / "run").run
    assert (run.project, run.name, run.tags, run.group, run.entity) == ("p", "n", ("t", "u"), "g", "e")
    assert Path(run.dir).is_relative_to(tmp_path / "wandb")
    assert run.id == "an-id"


def test_settings_win_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROJECT", "NAME", "TAGS", "RUN_GROUP"):
        monkeypatch.setenv(f"WANDB_{name}", "x")
    run = begun(tmp_path / "run", WandbConfig(project="p", name="n", tags=("t",), group="g")).run
    assert (run.project, run.name, run.tags, run.group) == ("p", "n", ("t",), "g")


def test_without_both_a_run_is_named_after_its_directory(tmp_path: Path) -> None:
    run = begun(tmp_path / "run").run
    assert (run.project, run.name, run.group, run.tags) == ("fedpl", "run", "", ())
    assert Path(run.dir).is_relative_to(tmp_path / "run" / "wandb")


def test_the_environments_id_is_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked_id() is None
    monkeypatch.setenv("WANDB_RUN_ID", "asked")
    assert asked_id() == "asked"
    WandbTracker(WandbConfig(), tmp_path, {}, "asked", 10).close()
    assert asked_id() is None, "the next run would be written into this one"


def test_a_run_that_was_left_open_is_not_gone_on_with(tmp_path: Path) -> None:
    left = WandbTracker(WandbConfig(), tmp_path / "one", {}, "left", 10).run
    assert WandbTracker(WandbConfig(), tmp_path / "two", {}, "next", 10).run.id == "next"
    with pytest.raises(wandb.errors.UsageError, match="finished"):
        left.log({"a": 1})


def test_a_run_that_the_user_opened_is_logged_to_and_stays_open(tmp_path: Path) -> None:
    own = wandb.init(mode="offline", dir=tmp_path)
    own.log({"mine": 1}, step=7)
    tracker = begun(tmp_path / "run")
    tracker.round(record({"a": 0.5}), rounds_result(1))
    tracker.finish(summary({"a": 0.5}))
    own.log({"mine": 2})
    assert own.summary["train_loss"] == 0.25
    assert own.summary["mine"] == 2


@pytest.mark.parametrize(("asked", "expected"), [(None, set()), (1, {"similarity", "weights"})])
def test_matrices_of_many_clients_are_pictures_where_they_are_asked_for(
    asked: int | None, expected: set[str], tmp_path: Path
) -> None:
    tracker = begun(tmp_path, WandbConfig(matrices=asked))
    tracker.round(record({str(i): 0.5 for i in range(65)}), rounds_result(65))
    tracker.close()
    media = {path.name.split("_")[0] for path in tmp_path.glob("wandb/offline-run-*/files/media/*/server/*")}
    assert media == expected
    assert not list(tmp_path.glob("wandb/offline-run-*/files/media/table/server"))


def test_an_offline_run_holds_metrics_pictures_and_configuration(
    small_run: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    main([*small_run, f"--run_dir={folder}", "--baselines=[]", "--tracking.wandb.group=tests"])
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    content = log.read_bytes()
    for key in (
        b"validation/aggregated/mean/accuracy",
        b"validation/tuned/worst/accuracy",
        b"validation/aggregated/std/macro_f1",
        b"train_loss",
        b"server/self_weight/mean",
        b"server/effective_neighbours/min",
        b"server/row_sum/min",
        b"seconds/aggregate",
        b"bytes_up",
        b"server/similarity",
        b"server/weights",
        b"negatives",
    ):
        assert key in content, key
    media = [path.name for path in folder.glob("wandb/offline-run-*/files/media/**/*") if path.is_file()]
    assert sum(name.endswith(".png") for name in media) == 2
    assert sum(name.endswith(".table.json") for name in media) == 4, "clients and weights"
    for fact in (b'"federation"', b'"versions"'):
        assert fact.strip(b'"') in content
