"""Runs as a user starts them, on a small model and a small table."""

import json
from pathlib import Path

import pytest
import torch
import yaml

import fedpl
from fedpl.config import Config
from fedpl.data import Columns, TextFiles
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.fit import main
from fedpl.report import main as report
from fedpl.runs.experiment import RunFolder
from fedpl.tasks.metrics import classification_scores
from tests.made_up import ORIGIN

STATISTICS = ("mean", "std", "worst", "bottom_decile")


@pytest.fixture(scope="module")
def finished(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A finished run's directory and the arguments that made it."""
    arguments = [
        *small_run,
        "--client.epochs=2",
        "--store_vectors=true",
        "--aggregator.granularity=block",
    ]
    folder = tmp_path_factory.mktemp("runs") / "first"
    assert main([*arguments, f"--run_dir={folder}"]) == 0
    return folder, arguments


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        run_main(lambda: main(arguments))
    assert leaving.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    return message


def test_the_run_directory_explains_itself(finished: tuple[Path, list[str]]) -> None:
    folder, _ = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapters",
        "config.yaml",
        "matrices",
        "metrics.jsonl",
        "plots",
        "report.html",
        "state",
        "summary.json",
        "vectors",
    ]
    assert sorted(path.name for path in (folder / "adapters").iterdir()) == ["one-a", "three-b", "two-a"]
    assert sorted(path.name for path in (folder / "plots").iterdir()) == [
        "clients.png",
        "curves.png",
        "similarity.png",
        "weights.png",
    ]
    assert sorted(path.name for path in (folder / "state").iterdir()) == [
        "aggregates-000001.npy",
        "aggregates-000002.npy",
        "baseline-fedavg",
        "baseline-local",
        "origin.json",
        "result.json",
        "round-000001.safetensors",
        "round-000002.safetensors",
    ]
    assert sorted(path.name for path in (folder / "vectors").iterdir()) == [
        "round-0001.npy",
        "round-0002.npy",
    ]


def test_the_summary_has_the_documented_schema(finished: tuple[Path, list[str]]) -> None:
    summary = summary_of(finished[0])
    assert (summary["method"], summary["seed"], summary["rounds"]) == ("fedbip", 0, 2)
    scores = {"accuracy", "macro_f1"}
    for client in summary["clients"].values():
        assert set(client) == {"examples", "aggregated", "tuned", "majority"}
        assert client["examples"] == 16
        assert all(set(client[model]) == scores for model in ("aggregated", "tuned", "majority"))
    for statistic in STATISTICS:
        assert set(summary[statistic]) == {"aggregated", "tuned", "majority"}
    assert set(summary["seconds"]) == {"train", "aggregate", "evaluate", "total"}
    assert set(summary["baselines"]) == {"local", "fedavg"}
    n = len(summary["clients"])
    for matrix in ("weights", "similarity"):
        assert [len(row) for row in summary[matrix]] == [n] * n
    accuracies = [client["aggregated"]["accuracy"] for client in summary["clients"].values()]
    assert summary["mean"]["aggregated"]["accuracy"] == pytest.approx(sum(accuracies) / n)
    assert summary["worst"]["aggregated"]["accuracy"] == min(accuracies)
    assert all(client["majority"]["accuracy"] == 0.5 for client in summary["clients"].values())


def test_metrics_hold_one_line_a_round(finished: tuple[Path, list[str]]) -> None:
    lines = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2]
    for line in lines:
        assert line["clients"]["id"] == ["one-a", "three-b", "two-a"]
        for name in ("train_loss", "self_weight", "effective_neighbours", "row_sum", "absolute_weight"):
            assert len(line["clients"][name]) == 3
        assert set(line["validation"]["aggregated"]) == set(STATISTICS)
    assert "test" in lines[-1]
    assert "test" not in lines[0]


def test_the_same_seed_gives_the_same_summary(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, arguments = finished
    main([*arguments, f"--run_dir={tmp_path / 'again'}"])
    main([*arguments, f"--run_dir={tmp_path / 'other'}", "--seed=1"])
    first, again, other = (summary_of(path) for path in (folder, tmp_path / "again", tmp_path / "other"))
    for summary in (first, again, other):
        del summary["seconds"]
    assert again == first
    assert other["similarity"] != first["similarity"]


def test_a_saved_configuration_repeats_the_run(finished: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = finished
    assert yaml.safe_load((folder / "config.yaml").read_text())["aggregator"]["granularity"] == "block"
    main([f"--config={folder / 'config.yaml'}", f"--run_dir={tmp_path / 'again'}"])
    first, again = summary_of(folder), summary_of(tmp_path / "again")
    assert again["similarity"] == first["similarity"]
    assert (tmp_path / "again" / "config.yaml").read_text() == (folder / "config.yaml").read_text()


def test_saved_adapters_answer_as_the_summary_says(
    finished: tuple[Path, list[str]], small_table: Path
) -> None:
    """Each adapter, loaded on a fresh model, reaches exactly the reported test accuracy."""
    folder, _ = finished
    source = TextFiles((str(small_table),), Columns(split="split"))
    tests = {client.id: client.test for client in source.load(0).clients}
    for client, entry in summary_of(folder)["clients"].items():
        answers = fedpl.load(folder, client).logits(tests[client].texts).argmax(-1)
        found = classification_scores(tests[client].labels, answers.tolist())
        assert found["accuracy"] == entry["aggregated"]["accuracy"]


def test_pictures_can_be_drawn_again(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = finished
    (folder / "plots" / "clients.png").unlink()
    assert report([str(folder)]) == 0
    assert (folder / "plots" / "clients.png").stat().st_size > 5_000
    assert "clients.png" in capsys.readouterr().out


def test_a_run_ends_with_the_table_of_methods(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*small_run, f"--run_dir={tmp_path / 'run'}", "--tracking.plots=false"])
    printed = capsys.readouterr().out
    for words in ("fedbip", "local only", "federated", "majority", "one-a", "worst", "run directory"):
        assert words in printed
    assert "\x1b" not in printed, "plain text when the output is no terminal"
    assert not (tmp_path / "run" / "plots").exists()


def test_a_directory_that_holds_a_run_is_left_alone(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, arguments = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert "already holds another run" in refused([*arguments, f"--run_dir={folder}"], capsys)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--model.path=nobody/nothing", "cannot load 'nobody/nothing'"),
        ("--lora.target_modules=[nope]", "no layer of"),
        ("--data.columns.text=sentence", "no column 'sentence'"),
        ("--data.paths=[nowhere.csv]", "no such file: nowhere.csv"),
        ("--data.columns.split=client", "split 'one-a' is none of"),
        ("--accelerator=gpu", "torch sees none"),
        ("--method=true_groups", "true_groups: TrueGroups needs data that names each client's group"),
        ("--baselines=[true_groups]", "this data names none of client 'one-a'"),
        ("--lora.r=9999", "lora.r: 9999 is more than the smaller side of encoder.layer.0"),
        ("--model.max_length=512", "has 128 positions; set --model.max_length 128"),
        ("--model.path=./nowhere", "cannot load './nowhere'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    argument: str,
    message: str,
    small_run: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run_dir = tmp_path / "run"
    line = refused([*small_run, argument, f"--run_dir={run_dir}"], capsys)
    assert message in line
    assert line.count("\n") == 1
    assert not run_dir.exists()


def test_a_run_directory_that_cannot_be_made(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "run_dir: cannot make" in refused([*small_run, f"--run_dir={tmp_path}/file/run"], capsys)


def test_a_used_directory_is_refused_whoever_asks(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="already holds another run"):
        RunFolder.create(Config(run_dir=str(tmp_path)), ORIGIN)


def test_unnamed_runs_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = (RunFolder.create(Config(rounds=7), ORIGIN) for _ in range(2))
    assert first.path != second.path
    assert Config.load(second.path / "config.yaml") == Config(rounds=7)
    assert first.path.parent == second.path.parent == Path("runs")


@pytest.mark.parametrize("client", ["../../etc", "a/b", "..", ".", "c:\\d", "ünï", "plain name"])
def test_client_names_cannot_leave_the_run_directory(client: str, tmp_path: Path) -> None:
    path = RunFolder(tmp_path).adapter(client)
    assert path.resolve().parent == (tmp_path / "adapters").resolve()
    assert path.name not in (".", "..")
