"""A number for each text: read, refused where it is none, scaled, scored, with less error as better."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fedpl.cli import make_parser, read
from fedpl.data import Columns, Iid, Rated, TextFiles, describe
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import best, summarise
from fedpl.tasks import Classification, Generation, Regression
from fedpl.tasks.metrics import regression_scores
from tests.conftest import small_rows

COLUMNS = Columns(split="split", value="stars")
TASK = Regression(low=-4.0, high=4.0)


def rated(path: Path, stars: Sequence[Any] = (-3.5, 0, "2.25", 4)) -> TextFiles:
    rows = [{**row, "stars": stars[i % len(stars)]} for i, row in enumerate(small_rows(("a", "b")))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextFiles((str(path),), COLUMNS)


def test_numbers_are_read_and_said(tmp_path: Path) -> None:
    data = TASK.take(rated(tmp_path / "t.jsonl").load(0))
    first = data.clients[0].train
    assert isinstance(first, Rated)
    assert first.values[:4] == (-3.5, 0.0, 2.25, 4.0)
    assert (data.classes, first.seconds) == ((), ())
    said = list(describe(data))
    assert said == ["data: 48 examples (train 32, validation 8, test 8); numbers from -3.5 to 4, mean 0.688"]
    constant = rated(tmp_path / "c.jsonl", [1]).load(0)
    assert "warning: 2 clients with one number alone in training: 'a', 'b'" in describe(constant)


@pytest.mark.parametrize("wrong", ["3,5", "n/a", True, "inf", "nan"])
def test_what_is_no_number(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"line 3: 'stars' is '{wrong}', expected a number such as -1.5"):
        rated(tmp_path / "t.jsonl", [1, 2, wrong, *[3] * 50]).load(0)


def test_other_tasks_and_other_data_are_refused(tmp_path: Path, small_table: Path) -> None:
    numbers, words = (
        rated(tmp_path / "t.jsonl").load(0),
        TextFiles((str(small_table),), Columns(split="split")),
    )
    with pytest.raises(
        UserError, match=r"Classification learns labels, and the data have numbers .*Regression"
    ):
        Classification().take(numbers)
    with pytest.raises(UserError, match="Generation learns answers in words"):
        Generation().take(numbers)
    with pytest.raises(UserError, match=r"the data have none; name their column with data.columns.value"):
        TASK.take(words.load(0))
    with pytest.raises(UserError, match="client 'a' has numbers that are not from 0 to 1; say from where"):
        Regression().take(numbers)


def test_settings_that_mean_nothing(small_run: list[str]) -> None:
    for options, said in (
        (
            ["--faults.attack=label_flip", "--faults.hostile=0.4"],
            "label_flip: there are no labels to flip in Reg",
        ),
        (
            ["--client.mask_absent_classes=true"],
            "client.mask_absent_classes: there are no classes in Regression",
        ),
        (["--task.low=3", "--task.high=1"], "task.low: has to be less than task.high, got 3.0 and 1.0"),
        (["--data.convention=fedpl.data.Swap"], "data.convention: Swap: needs classes"),
        (["--data.noise.share=0.5"], "data.noise: needs classes"),
        (["--data.splitting.shots=4"], "data.splitting.shots: needs classes"),
        (["--data.columns.label=stars"], "data.columns.value: takes the place of label"),
    ):
        with pytest.raises(UserError, match=said):
            read(make_parser("fit", ""), [*small_run, "--task=fedpl.tasks.Regression", *VALUE, *options])
    dealt = TextFiles(("t.csv",), COLUMNS, partition=Iid(2)).problems()
    assert not any("needs classes" in line for line in dealt)
    assert Columns(value="v", prompt="p", answer="a").problems() == ["data.columns.value: goes with text"]


VALUE = ["--data.columns.value=stars"]


def test_less_error_is_better() -> None:
    good, bad = (regression_scores([0.0, 1.0, 2.0], own) for own in ([0.0, 1.0, 3.0], [2.0, 1.0, 0.0]))
    assert good["mae"] == pytest.approx(1 / 3)
    assert good["rmse"] == pytest.approx(3**-0.5)
    assert (good["spearman"], bad["spearman"]) == pytest.approx((1.0, -1.0))
    assert regression_scores([1.0, 2.0], [1.0, 1.0])["pearson"] == 0.0
    assert regression_scores([1.0], [3.0])["spearman"] == 0.0
    assert regression_scores([1.0, 2.0], [1.0, float("inf")])["pearson"] == 0.0
    assert best([bad, good], TASK.metrics[0]) == good
    summary = summarise({"x": good, "y": bad}, TASK.metrics)
    assert (summary.worst["mae"], summary.worst["pearson"]) == (bad["mae"], bad["pearson"])
    assert summary.bottom_decile["mae"] > summary.mean["mae"]


def test_loss_and_answers_are_of_one_scale(small_model: Path, tmp_path: Path) -> None:
    client = rated(tmp_path / "t.jsonl").load(0).clients[0]
    encode = TASK.encoder(ModelConfig(path=str(small_model)))
    train, test = encode(client.train), encode(client.test, True)
    right = (test.targets / 4)[:, None]
    assert TASK.losses(right, test.targets).tolist() == [0.0] * 4
    assert TASK.losses(right + 0.5, test.targets).tolist() == pytest.approx([0.25] * 4)
    assert TASK.score(test.targets.tolist(), TASK.answers(right)) == pytest.approx(
        {"mae": 0.0, "rmse": 0.0, "pearson": 1.0, "spearman": 1.0}, abs=1e-6
    )
    values = torch.tensor(client.train.values) if isinstance(client.train, Rated) else torch.empty(0)
    middle = float(values.sort().values[7:9].mean())
    floor = min(float((test.targets - one).abs().mean()) for one in (float(values.mean()), middle))
    assert TASK.floor(client, train, test)["mae"] == pytest.approx(floor)
