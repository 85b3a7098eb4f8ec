"""Regression from data to report: one by one as in cohorts, cut off as in one go, less error as better."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fedpl
from fedpl.cli import make_parser, read
from fedpl.data import Rated


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
    return fedpl.run(config, run_dir=str(folder), baselines=["local"])


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
