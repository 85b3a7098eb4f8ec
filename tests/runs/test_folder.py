"""A run's directory: new, empty, the working directory, a link; and what happens to it meanwhile."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.files import held
from fedpl.problems import problems
from fedpl.rounds.loop import RoundResult
from fedpl.runs.experiment import run
from fedpl.runs.folder import RunFolder
from tests.made_up import ORIGIN


def test_an_empty_folder_stays_the_one_that_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount point and the working directory cannot be replaced."""
    here, linked = tmp_path / "here", tmp_path / "linked"
    here.mkdir()
    linked.mkdir()
    (linked / "lost+found").mkdir()  # of a file system that begins here
    (linked / ".config.yaml.part").write_text("cut o")  # of a kill
    (tmp_path / "link").symlink_to(linked)
    before = [path.stat().st_ino for path in (here, linked)]
    monkeypatch.chdir(here)
    for name in (".", str(tmp_path / "link")):
        assert problems(Config(run_dir=name)) == []
        folder = RunFolder.create(Config(run_dir=name, rounds=7), ORIGIN)
        assert Config.load(folder.path / "config.yaml").rounds == 7
        with pytest.raises(UserError, match="already holds another run"):
            RunFolder.create(Config(run_dir=name), ORIGIN)
        assert "already holds another run" in problems(Config(run_dir=name))[0]
    assert [path.stat().st_ino for path in (here, linked)] == before
    assert (tmp_path / "link").is_symlink()


def test_a_folder_that_another_process_has_begun_with(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(UserError, match="another process is working on"):
        RunFolder.create(Config(run_dir=str(tmp_path)), ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="run_dir: cannot make"):
        RunFolder.create(Config(run_dir=str(tmp_path / "link")), ORIGIN)


class Removing:
    """A watcher that removes the run's directory after a round."""

    def __init__(self, round: int, folder: Path) -> None:
        self.at, self.folder = round, folder

    def round(self, record: object, result: RoundResult) -> None:
        if result.round == self.at:
            shutil.rmtree(self.folder)

    def finish(self, summary: object) -> None:
        pass


@pytest.mark.parametrize("round", [1, 2])
def test_a_directory_that_is_removed_in_mid_run(round: int, small_run: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [*small_run, f"--run_dir={folder}", "--baselines=[]", "--tracking.plots=false"]
    config = read(make_parser("fit", ""), arguments)
    with pytest.raises(UserError, match=f"{folder} was removed while the run was going on"):
        run(config, Console(quiet=True), [Removing(round, folder)])
    assert not folder.exists()


def test_a_directory_that_is_removed_at_the_very_end(tmp_path: Path) -> None:
    folder = RunFolder.create(Config(run_dir=str(tmp_path / "run")), ORIGIN)
    with pytest.raises(UserError, match="was removed"), folder.mine():
        shutil.rmtree(folder.path)


def test_a_state_without_a_configuration_is_not_an_empty_folder(tmp_path: Path) -> None:
    """What a kill leaves before there was a run is nothing; a state that lost its configuration is not."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "origin.json").write_text("{")
    assert not problems(Config(run_dir=str(tmp_path)))
    (tmp_path / "state" / "round-000001.safetensors").write_text("")
    assert "already holds another run" in problems(Config(run_dir=str(tmp_path)))[0]
