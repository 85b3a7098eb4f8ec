"""Who goes on with a run has its data, settings and records; who has others is told."""

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpl.api import Run
from fedpl.compare.__main__ import main as compare_main
from fedpl.data import ClientData, Split
from fedpl.errors import UserError
from fedpl.fit import main
from fedpl.replay.__main__ import main as replay_main
from fedpl.rounds.federation import Federation
from fedpl.runs.folder import RunFolder
from fedpl.runs.origin import Origin, data_digest
from fedpl.site.census import digest_of
from tests.runs.test_resume import Killed, without_seconds


@pytest.fixture
def table(small_run: list[str], small_table: Path, tmp_path: Path) -> tuple[Path, list[str]]:
    """A table of one's own that may change, and the arguments of a run on it."""
    (given,) = (word for word in small_run if word.startswith("--data.paths="))
    path = tmp_path / "table.csv"
    shutil.copy(small_table, path)
    rest = [word for word in small_run if word != given]
    return path, [*rest, f"--data.paths=[{path}]", "--tracking.plots=false", "--baselines=[]"]


def change(path: Path, split: str, column: str) -> None:
    """Change one label or text of one split."""
    lines = path.read_text().splitlines()
    names = lines[0].split(",")
    row = next(i for i, line in enumerate(lines) if line.endswith(split) or f",{split}," in line)
    cells = lines[row].split(",")
    place = names.index(column)
    cells[place] = {"yes": "no", "no": "yes"}.get(cells[place], cells[place] + " indeed")
    lines[row] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")


def killed_in_round_one(arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has delivered a client's answer and no round."""

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("fedpl.server.aggregator.Aggregator.update", die)
        with pytest.raises(Killed):
            main([*arguments, f"--run_dir={folder}"])
    assert not list((folder / "state").glob("round-*"))


@pytest.mark.parametrize(("split", "column"), [("train", "text"), ("train", "label"), ("test", "label")])
def test_data_that_changed_in_round_one_are_noticed(
    table: tuple[Path, list[str]],
    split: str,
    column: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, arguments = table
    killed_in_round_one(arguments, tmp_path / "run", monkeypatch)
    before = path.read_text()
    change(path, split, column)
    assert path.read_text() != before
    with pytest.raises(UserError, match="data are no longer those of the run"):
        main([f"--resume={tmp_path / 'run'}"])
    path.write_text(before)
    assert main([f"--resume={tmp_path / 'run'}"]) == 0


def test_every_part_of_the_data_has_a_say() -> None:
    """Once shown by breaking it: without labels, or without validation data, nothing else noticed."""
    splits = {name: Split((f"{name} a", f"{name} b"), (0, 1)) for name in ("train", "validation", "test")}
    client = ClientData("one", **splits)
    found = {digest_of(client, ("no", "yes")), digest_of(client, ("yes", "no"))}
    for name, split in splits.items():
        for part in ({"texts": ("x", split.texts[1])}, {"labels": (1, 1)}):
            changed = dataclasses.replace(client, **{name: dataclasses.replace(split, **part)})
            found.add(digest_of(changed, ("no", "yes")))
    found.add(digest_of(dataclasses.replace(client, id="two"), ("no", "yes")))
    assert len(found) == 9


def test_the_digest_of_all_clients_is_of_each(toy: Callable[..., Federation]) -> None:
    census = toy().census
    first, *others = census.members
    for members in ((first._replace(origin="0" * 32), *others), (*others, first)):
        assert data_digest(census._replace(members=members)) != data_digest(census)


@pytest.fixture(scope="module")
def finished(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    lean = ["--tracking.plots=false", "--baselines=[]", "--store_vectors=true", "--rounds=2"]
    assert main([*small_run, *lean, f"--run_dir={folder}"]) == 0
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_the_summary_says_on_what_and_with_what(finished: Path) -> None:
    summary = Run.open(finished).summary
    assert summary.data == RunFolder(finished).origin.data
    assert summary.versions is not None
    assert {"python", "torch", "jax", "peft", "transformers"} <= set(summary.versions)


def test_an_edited_configuration_is_refused_by_name(copy: Path) -> None:
    path = copy / "config.yaml"
    path.write_text(re.sub(r"\n  lr: .*", "\n  lr: 0.125", path.read_text(), count=1))
    (copy / "summary.json").unlink()
    with pytest.raises(UserError, match=r"config.yaml was edited since it began \(client.lr .* → 0.125\)"):
        main([f"--resume={copy}"])


def digit(path: Path) -> None:
    """Change the last digit in a file that is none of a key's."""
    content = path.read_text()
    place = [match.start() for match in re.finditer(r"(?<=\.)\d", content)][3]
    path.write_text(content[:place] + str((int(content[place]) + 1) % 10) + content[place + 1 :])


def test_a_changed_digit_in_the_records_is_refused(copy: Path) -> None:
    (copy / "summary.json").unlink()
    digit(copy / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics.jsonl was changed after it was written"):
        main([f"--resume={copy}"])


def test_a_changed_digit_in_a_result_never_reaches_the_summary(copy: Path, finished: Path) -> None:
    """The last round is done again."""
    (copy / "summary.json").unlink()
    digit(copy / "state" / "result.json")
    assert main([f"--resume={copy}"]) == 0
    assert without_seconds(copy) == without_seconds(finished)


def test_a_changed_origin_is_refused(copy: Path) -> None:
    path = copy / "state" / Origin.FILE
    path.write_text(path.read_text().replace("lr: 0.002", "lr: 0.003"))
    with pytest.raises(UserError, match=r"origin.json is damaged"):
        main([f"--resume={copy}"])


def test_a_truncated_summary_is_no_result_and_is_written_again(copy: Path, finished: Path) -> None:
    path = copy / "summary.json"
    path.write_text(path.read_text()[:100])
    assert not Run.open(copy).finished
    with pytest.raises(UserError, match=r"go on with fedpl\.go_on"):
        _ = Run.open(copy).summary
    assert main([f"--resume={copy}"]) == 0
    assert without_seconds(copy) == without_seconds(finished)


def test_other_versions_are_said(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedpl.runs.origin.versions", lambda: {"torch": "0.0", "python": "2.7"})
    capsys.readouterr()
    assert main([f"--resume={copy}"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "begun with other versions, so equal up to rounding only: " in shown
    assert "→ 2.7" in shown


def test_a_replay_on_other_data_is_refused(table: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, arguments = table
    folder = tmp_path / "run"
    main([*arguments, f"--run_dir={folder}", "--store_vectors=true", "--rounds=1"])
    change(path, "test", "label")
    with pytest.raises(UserError, match="replay: the clients' data are no longer those of the run"):
        replay_main([str(folder), "--methods=fedavg"])


def test_a_comparison_does_not_mix_data(table: tuple[Path, list[str]], tmp_path: Path) -> None:
    path, arguments = table
    own = ["--rounds=1", "--seeds=0", f"--out={tmp_path / 'out'}"]
    arguments = [word for word in arguments if not word.startswith("--baselines")]
    compare_main(["--methods=fedavg", "--without_local", *own, *arguments])
    change(path, "train", "label")
    with pytest.raises(UserError, match=r"fedavg-s0 was run on other data than .*local-s0 would be"):
        compare_main(["--methods=fedavg,local", *own, *arguments])
    assert not (tmp_path / "out" / "local-s0").exists()
