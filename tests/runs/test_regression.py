"""Regression from data to report: one by one as in cohorts, cut off as in one go, less error as better."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fedpl
from fedpl.cli import make_parser, read
from fedpl.data import Rated
from fedpl.predict import main as predict


@pytest.fixture(scope="module")
def config(small_run: list[str], small_table: Path, tmp_path_factory: pytest.TempPathFactory) -> fedpl.Config:
    path = tmp_path_factory.mktemp("rated") / "t.csv"
    with small_table.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "stars", "client", "split"])
        writer.writeheader()
        for i, row in enumerate(rows):
            stars = (2 if row.pop("label") == "yes" else -2) + i % 5 / 2
            writer.writerow({**row, "stars": stars})
    argv = ["--task=fedpl.tasks.Regression", "--task.low=-4", "--task.high=4", "--data.columns.value=stars"]
    return read(make_parser("fit", ""), [*small_run, *argv, f"--data.paths=[{path}]"])


@pytest.fixture(scope="module")
def made(config: fedpl.Config, tmp_path_factory: pytest.TempPathFactory) -> fedpl.Run:
    folder = tmp_path_factory.mktemp("regression") / "run"
    return fedpl.run(config, run_dir=str(folder), baselines=["local"], store_vectors=True)


def test_a_model_answers_with_the_numbers_that_were_scored(made: fedpl.Run) -> None:
    for client in made.config.data.load(made.config.seed).clients:
        model = fedpl.load(made, client.id)
        assert isinstance(client.test, Rated)
        answers = np.array(model.predict(client.test.texts))
        assert model.card.scores.aggregated is not None
        error = np.abs(answers - client.test.values).mean()
        assert error == pytest.approx(model.card.scores.aggregated["mae"], rel=1e-5)
        assert model.logits(client.test.texts).shape == (len(answers), 1)
    page = (made.path / "adapters" / client.id / "README.md").read_text()
    assert "answers: a number" in page


def test_several_clients_at_once_and_on_the_command_line(
    made: fedpl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, clients = ["the crew was late", "a fine day", "lost again"], ["one-a", "two-a", "one-a"]
    wanted = [fedpl.load(made, c).predict([t])[0] for c, t in zip(clients, texts, strict=True)]
    assert fedpl.load_all(made).predict(texts, clients) == pytest.approx(wanted, rel=1e-4)
    table = tmp_path / "t.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "who"), *zip(texts, clients, strict=True)])
    assert predict([str(made.path), str(table), "--clients", "who"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["who"] for row in rows] == clients
    assert [float(row["value"]) for row in rows] == pytest.approx(wanted, rel=1e-4)


def test_a_newcomer_of_a_regression(made: fedpl.Run, tmp_path: Path) -> None:
    table = tmp_path / "acme.csv"
    with table.open("w", newline="") as file:
        split = ("train", "train", "validation", "test")
        rows = [(f"the crew was {'good ' * (i % 5)}{'a ' * i}", i % 5 - 2, split[i % 4]) for i in range(24)]
        csv.writer(file).writerows([("text", "stars", "split"), *rows])
    (found,) = made.onboard(table, rounds=1)
    assert found.scores["test"].local["mae"] > 0
    assert isinstance(fedpl.load(made, "acme", newcomer=True).predict(["text"])[0], float)


def test_the_worst_has_the_largest_error(made: fedpl.Run) -> None:
    errors = [own.scores.aggregated["mae"] for own in made.summary.clients.values() if own.scores.aggregated]
    worst = made.summary.test.worst.aggregated
    assert worst is not None
    assert worst["mae"] == max(errors)
    assert made.summary.floor_name == "without learning"
    made.report()
    page = (made.path / "report.html").read_text()
    assert "less is better" in page
    assert "mae" in page


def test_one_by_one_and_cut_off_it_is_the_same(made: fedpl.Run, config: fedpl.Config, tmp_path: Path) -> None:
    alone = fedpl.run(config, run_dir=str(tmp_path / "alone"), baselines=[], client__cohort_size=1, rounds=1)
    fedpl.run(config, run_dir=str(tmp_path / "cut"), baselines=[], rounds=1)
    again = fedpl.go_on(tmp_path / "cut", rounds=2)
    whole, parts, single = (run.rounds.filter(regex="validation.*mae") for run in (made, again, alone))
    assert whole.equals(parts[whole.columns])
    np.testing.assert_allclose(single.to_numpy(), whole[single.columns].iloc[:1].to_numpy(), rtol=1e-4)


def test_plain_peft_loads_the_head_of_one_row(config: fedpl.Config, tmp_path: Path) -> None:
    first = replace(config, model=replace(config.model, pooling="first"))
    made = fedpl.run(first, run_dir=str(tmp_path / "run"), baselines=[], rounds=1)
    model = fedpl.load(made, made.clients[0])
    assert model.card.loads_as == "AutoModelForSequenceClassification"
    (answer,) = model.predict(["a good seat"])
    assert isinstance(answer, float)
    page = (made.path / "adapters" / made.clients[0] / "README.md").read_text()
    assert "num_labels=1" in page
    assert "id2label" not in page


def test_a_guard_goes_by_errors(config: fedpl.Config, tmp_path: Path) -> None:
    made = fedpl.run(config, run_dir=str(tmp_path / "run"), baselines=[], client__guard="validation")
    choices = [own.choice for own in made.summary.clients.values()]
    assert all(choice is not None and set(choice.over) == {"tuned", "mixture"} for choice in choices)
    assert isinstance(fedpl.load(made, "one-a", model="best").predict(["a"])[0], float)
