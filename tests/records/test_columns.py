"""Records of many clients as columns."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpl.errors import UserError
from fedpl.records.columns import columns, rows
from fedpl.records.results import MethodResult, RunSummary
from fedpl.records.rounds import RoundRecord
from tests.made_up import record, result, summary

_LEAVES = st.sampled_from([None, 1, 0.5, "x"])
_OBJECTS = st.fixed_dictionaries({"a": _LEAVES, "b": st.none() | st.fixed_dictionaries({"c": _LEAVES})})


@given(st.lists(st.none() | _OBJECTS, max_size=5))
def test_objects_come_back(values: list[Any]) -> None:
    assert rows(json.loads(json.dumps(columns(values))), len(values)) == values


MANY = {f"client-{i}": i / 1000 for i in range(300)}


def test_a_key_stands_once_and_who_lacks_it_is_named(tmp_path: Path) -> None:
    there = list(MANY)[:-2]
    found = summary(MANY, baselines={"local": result(MANY)}, tuned=there)
    found.write(tmp_path)
    assert RunSummary.read(tmp_path) == found
    text = (tmp_path / "summary.json").read_text()
    names, table = json.loads(text)["clients"]
    assert names == list(MANY)
    assert table["aggregated"]["accuracy"] == list(MANY.values())
    assert table["tuned"]["@rows"] == list(range(298))
    assert text.count('"macro_f1"') < 40


def test_results_and_rounds_of_many_clients_come_back(tmp_path: Path) -> None:
    result(MANY).write(tmp_path)
    assert MethodResult.read(tmp_path) == result(MANY)
    found = record(MANY)
    again = RoundRecord.from_json(json.loads(json.dumps(found.to_json())))
    assert again.validation == found.validation


def test_few_clients_are_objects_by_name() -> None:
    assert list(summary({"a": 0.5}).to_json()["clients"]) == ["a"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda clients: clients.pop(),
        lambda clients: clients[0].pop(),
        lambda clients: clients[1]["examples"].pop(),
        lambda clients: clients[1]["tuned"].update({"@rows": [0, 700]}),
    ],
)
def test_columns_that_do_not_fit_are_refused(damage: Any) -> None:
    value = summary(MANY).to_json()
    damage(value["clients"])
    with pytest.raises(UserError, match="clients: expected names and columns"):
        RunSummary.from_json(value)
