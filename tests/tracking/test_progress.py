import io
import math
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from fedpl.records.messages import Seconds
from fedpl.terminal import print_table
from fedpl.tracking.progress import Display, closing_table, round_line
from tests.made_up import REGRESSION, record, result, summary

RECORD = replace(
    record({"a": 1.0, "b": 0.75, "c": 0.5}), method="fedbip", round=2, seconds=Seconds(1.5, 0.002, 0.5)
)


def test_a_round_in_one_line() -> None:
    assert round_line(RECORD, 5) == (
        "fedbip  round 2/5  loss 0.250  aggregated 75.0 (worst 50.0)  tuned 75.0 (worst 50.0)  "
        "train 1.5 s, aggregate 2 ms"
    )
    assert "loss not finite" in round_line(replace(RECORD, train_loss=math.nan), 5)
    partial = round_line(replace(RECORD, participants=2, epsilon=1.5), 5)
    assert "loss 0.250  2 of 3 clients  aggregated" in partial
    assert "  ε 1.500  train" in partial


def test_a_round_of_another_task_follows_its_metric() -> None:
    line = round_line(record({"a": 0.5, "b": 1.25}, REGRESSION), 5)
    assert "aggregated 0.875 (worst 1.250)  tuned 0.875 (worst 1.250)" in line


def column(table: Table, place: int) -> list[str]:
    return list(table.columns[place].cells)


def test_a_client_without_a_tuned_model_has_a_dash() -> None:
    table = closing_table(summary({"a": 0.5, "b": 0.75}, tuned=["b"]))
    assert table.title == "Test accuracy, %, after 1 round"
    assert [str(next(iter(column.cells))) for column in table.columns] == ["a", "50.0", "–", "25.0"]
    assert [str(column.header) for column in table.columns][-1] == "majority class"
    assert column(table, 1)[2:] == ["62.5", "12.5", "50.0", "52.5", "62.5"]
    assert column(table, 0)[2:] == ["mean", "std", "worst", "bottom decile", "mean macro-F1"]


def test_the_closing_table_of_many_clients_has_their_statistics_alone() -> None:
    table = closing_table(summary({str(i): 0.5 for i in range(65)}))
    assert column(table, 0) == ["mean", "std", "worst", "bottom decile", "mean macro-F1"]
    assert table.columns[0].header == "65 clients"


def test_the_closing_table_of_another_task() -> None:
    baselines = {"local": result({"a": 1.5, "b": 2.0}, REGRESSION)}
    table = closing_table(summary({"a": 0.5, "b": 0.75}, REGRESSION, baselines))
    assert table.title == "Test rmse, after 1 round"
    assert [str(column.header) for column in table.columns][-1] == "without learning"
    assert column(table, 1)[:5] == ["1.500", "2.000", "1.750", "0.250", "2.000"]
    assert column(table, 0)[-1] == "mean pearson"


def shown(terminal: bool, enabled: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with Display(console, enabled) as display:
        display.begin("fedbip", 5, 12)
        display.round(RECORD, 5)
        display.line(
            "a line that is rather longer than the eighty columns that the terminal has for it, all in one"
        )
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    text = shown(terminal=False, enabled=True)
    assert "\x1b" not in text
    first, second, _ = text.splitlines()
    assert first == "fedpl: fedbip trains; round 1 also compiles what later rounds use again"
    assert second == round_line(RECORD, 5)


def test_nothing_is_said_of_a_method_that_has_ended() -> None:
    console = Console(file=io.StringIO(), width=80)
    with Display(console, True) as display:
        display.begin("fedbip", 5, 12, done=5)
        display.begin("fedavg", 5, 12, done=2)
        display.begin("local", 5, 12)
    (line,) = console.file.getvalue().splitlines()
    assert line == "fedpl: fedavg trains; round 3 also compiles what later rounds use again"


@pytest.mark.parametrize("baselines", [2, 4, 9])
@pytest.mark.parametrize("width", [80, 50])
def test_heads_and_numbers_are_whole_in_a_narrow_terminal(baselines: int, width: int) -> None:
    values = {"a-client-of-a-long-name": 1.0, "b": 0.75}
    names = ["local", "fedavg", "fedbip_robust", *"cdefgh", "pfedgraph"][:baselines]
    console = Console(file=io.StringIO(), width=width)
    found = summary(values, baselines={name: result(values) for name in names})
    whole = closing_table(replace(found, method="fedbip"))
    print_table(console, whole)
    said = console.file.getvalue()
    assert max(map(len, said.splitlines())) <= width
    assert said.count("100.0") == baselines + 2, "every baseline and two models of the first client"
    assert said.count("25.0") == 6, "the last column: two clients and four statistics"
    heads = {word for line in said.splitlines() if "┃" in line for word in line.replace("┃", " ").split()}
    wanted = {"local": "local only", "fedavg": "federated average"}
    for name in [*(wanted.get(name, name) for name in names), "fedbip aggregated", "majority class"]:
        assert set(name.split()) <= heads, "no word of a head is broken"


def test_a_live_display_on_a_terminal() -> None:
    text = shown(terminal=True, enabled=True)
    assert "\x1b" in text
    assert "clients" in text
    assert "the first round compiles" in text


def test_no_progress_when_switched_off() -> None:
    assert "round 2/5" not in shown(terminal=True, enabled=False)
