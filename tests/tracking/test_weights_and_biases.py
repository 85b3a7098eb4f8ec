"""W&B without a server: the mode it chooses, and what an offline run holds."""

from pathlib import Path

import pytest
import wandb

from fedpl.config import WandbConfig
from fedpl.fit import main
from fedpl.tracking.weights_and_biases import WandbTracker, choose_mode, logged_in


@pytest.fixture(autouse=True)
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody is logged in and nothing is asked for."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


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


def test_online_without_a_login_records_offline_and_never_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    monkeypatch.setattr(wandb, "init", lambda mode, **options: modes.append(mode) or Silent())
    WandbTracker(WandbConfig(mode="online"), tmp_path, {}, ("a",))
    assert modes == ["offline"]
    assert "not logged in" in capsys.readouterr().err


def test_an_unreachable_server_means_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []

    def init(mode: str, **options: object) -> "Silent":
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("no route to host")
        return Silent()

    monkeypatch.setenv("WANDB_API_KEY", "key")
    monkeypatch.setattr(wandb, "init", init)
    WandbTracker(WandbConfig(), tmp_path, {}, ("a",))
    assert modes == ["online", "offline"]
    assert "cannot be reached" in capsys.readouterr().err


class Silent:
    """A run that records nothing."""

    def define_metric(self, *_: object, **__: object) -> None: ...


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
    assert sum(name.endswith(".table.json") for name in media) == 2
