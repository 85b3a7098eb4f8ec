"""A run some of whose clients have nothing to be scored on, from its first line to what reads it."""

import json
from pathlib import Path

import pytest

import fedpl
from fedpl.compare.__main__ import main as compare
from fedpl.compare.statistics import client_scores
from fedpl.fit import main
from fedpl.replay.__main__ import main as replay
from fedpl.report import main as report
from tests.conftest import small_rows, write_csv
from tests.made_up import summary


@pytest.fixture(scope="module")
def arguments(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two clients as usual, one with two rows, one that declares no validation rows."""
    rows = small_rows(("one-a", "three-b"))
    rows += [row | {"split": "train"} for row in small_rows(("[two]",), 2)]
    rows += [row for row in small_rows(("four-a",), 12) if row["split"] != "validation"]
    path = write_csv(tmp_path_factory.mktemp("small") / "small.csv", rows)
    return [*small_run, f"--data.paths=[{path}]", "--data.small_clients=train_only", "--client.epochs=1"]


@pytest.fixture(scope="module")
def finished(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "first"
    own = ["--store_vectors=true", "--baselines=[local]", "--rounds=1"]
    assert main([*arguments, *own, f"--run_dir={folder}"]) == 0
    return folder


def test_scores_skip_them_and_everything_else_has_them(finished: Path) -> None:
    summary = fedpl.Run.open(finished).summary
    assert tuple(summary.clients) == ("[two]", "four-a", "one-a", "three-b")
    scored = {client: own.scores.aggregated for client, own in summary.clients.items()}
    assert scored["[two]"] is None
    accuracies = [own["accuracy"] for own in scored.values() if own is not None]
    assert len(accuracies) == 3
    assert summary.test.mean.aggregated["accuracy"] == pytest.approx(sum(accuracies) / 3)
    assert summary.clients["[two]"].scores.majority is None
    assert summary.baselines["local"].scores_of("[two]").tuned is None
    (record,) = fedpl.Run.open(finished).records
    validation = {c: own.aggregated is not None for c, own in record.validation.clients.items()}
    assert validation == {"[two]": False, "four-a": False, "one-a": True, "three-b": True}
    assert None not in record.clients.train_loss
    assert {path.name for path in (finished / "plots").iterdir()} >= {"clients.png", "curves.png"}
    assert fedpl.load(finished, "[two]").predict(["the crew was great"])[0] in ("no", "yes")


def test_going_on_replaying_and_drawing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay([str(finished), "--aggregator.weighting.negatives=clip", "--test"]) == 0
    (path,) = (finished / "replays").iterdir()
    for reading in json.loads(path.read_text())["readings"]:
        assert set(reading["test"]["clients"]) == {"four-a", "one-a", "three-b"}
        assert set(reading["validation"]["clients"]) == {"one-a", "three-b"}
    capsys.readouterr()
    assert main(["--resume", str(finished), "--rounds=2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "2 of 4 clients are too small, trained and not scored on empty splits: '[two]' (2 rows, none for"
        in said
    )
    assert "1 client without test examples, not scored on them: '[two]'; means are over the 3 others" in said
    assert "│ [two] │ – │ – │ – │ – │" in said
    assert "Statistics are over the 3 of 4 clients with test data." in said
    assert report([str(finished)]) == 0


def test_a_comparison_over_them(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--methods=local,fedavg", "--seeds=0,1", f"--out={tmp_path / 'out'}", *arguments, "--rounds=1"]
    assert compare(words) == 0
    assert "seed 0: 1 client without test examples" in capsys.readouterr().out.replace("\n", " ")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert 0 <= found["methods"]["fedavg"]["aggregated"]["accuracy"]["mean"] <= 1
    assert "[two]" not in found["methods"]["fedavg"]["aggregated"]["harmed"]


def test_a_run_that_nobody_is_scored_in(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row | {"split": "train"} for row in small_rows(("one-a", "three-b"), 4)]
    path = write_csv(tmp_path / "t.csv", rows)
    words = [f"--data.paths=[{path}]", "--data.small_clients=train_only", "--rounds=1", "--baselines=[]"]
    assert main([*small_run, *words, f"--run_dir={tmp_path / 'run'}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "warning: no client has test examples" in said
    assert "No client has test data" in said
    run = fedpl.Run.open(tmp_path / "run")
    assert run.summary.validation is None
    assert run.summary.test.mean.aggregated is None
    assert run.records[0].validation is None


def test_clients_that_one_seed_drops_are_compared_in_none() -> None:
    runs = [summary({"a": 0.5, "b": 0.75}), summary({"a": 0.25, "c": 1.0})]
    assert client_scores(runs, "aggregated") == {"a": 0.375}
