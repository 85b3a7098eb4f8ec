"""Records: what becomes of them in JSON, what comes back, what is refused."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.records.plain import encode, flat
from fedpl.records.results import MethodResult, RunSummary
from fedpl.records.rounds import RoundRecord, diagnostics, mean_over_blocks, read_rounds
from tests.made_up import REGRESSION, record, result, summary


def test_diagnostics_by_hand() -> None:
    similarity = np.array([[1.0, 0.5], [-0.5, 1.0]])
    weights = np.array([[0.75, 0.25], [-0.5, 1.5]])
    found = diagnostics(similarity, weights, range(len(weights)), len(weights))
    assert found["row_sum"] == (1.5, 0.5)
    assert found["absolute_weight"] == (1.0, 2.0)
    assert found["self_weight"] == (0.75, 1.5)
    assert found["effective_neighbours"] == pytest.approx([1 / 0.625, 1 / 2.5])


def test_uniform_weights_have_as_many_neighbours_as_clients() -> None:
    weights = np.full((5, 5), 0.2)
    assert diagnostics(weights, weights, range(5), 5)["effective_neighbours"] == pytest.approx([5.0] * 5)


def test_blocks_are_averaged() -> None:
    blocks = np.stack([np.eye(2), np.ones((2, 2))])
    assert mean_over_blocks(blocks).tolist() == [[1.0, 0.5], [0.5, 1.0]]


def test_what_json_lacks_becomes_null() -> None:
    value = {"a": [1.0, math.nan], "b": {"c": -math.inf}, "d": (1, "x"), "e": True}
    assert encode(value) == {"a": [1.0, None], "b": {"c": None}, "d": [1, "x"], "e": True}
    json.dumps(encode(value), allow_nan=False)


def test_flat_leaves_clients_and_nulls_out() -> None:
    nested = {"a": {"b": 1, "clients": {"x": 2}}, "c": None, "d": 0.5, "name": "text"}
    assert flat(nested) == {"a/b": 1, "d": 0.5}


def test_a_summary_in_json() -> None:
    baselines = {"local": result({"a": 0.25, "b": 0.5})}
    content = summary({"a": 0.5, "b": 1.0}, baselines=baselines, tuned=["a"]).to_json()
    assert list(content) == [
        *("method", "seed", "rounds", "classes", "metrics", "clients", "mean", "std", "worst"),
        *("bottom_decile", "validation", "baselines", "bytes", "rejected", "seconds"),
        *("weights", "similarity"),
    ]
    assert content["metrics"][1] == {"name": "macro_f1", "unit": "%", "higher": True}
    both = {"accuracy": 1.0, "macro_f1": 1.0}
    floor = {"accuracy": 0.25, "macro_f1": 0.25}
    assert content["clients"]["b"] == {"examples": 16, "aggregated": both, "tuned": None, "majority": floor}
    assert content["mean"]["aggregated"]["accuracy"] == 0.75
    assert content["mean"]["tuned"]["accuracy"] == 0.5
    assert set(content["baselines"]["local"]) == {"clients", "mean", "std", "worst", "bottom_decile"}
    assert content["bytes"] == {"up": 1, "down": 2}
    assert content["seconds"] == {"train": 1.0, "aggregate": 0.5, "evaluate": 0.25, "total": 2.0}
    assert content["weights"] == [[float(np.float32(1 / 3))] * 2] * 2


def test_the_worst_client_of_an_error_is_the_one_with_most_of_it() -> None:
    found = summary({"a": 0.1, "b": 0.2, "c": 0.9}, REGRESSION)
    rmse, pearson = REGRESSION
    assert found.test.value("worst", "aggregated", rmse) == 0.9
    assert found.test.value("worst", "aggregated", pearson) == 0.1
    assert found.test.value("bottom_decile", "tuned", rmse) == pytest.approx(0.76)
    assert found.to_json()["metrics"][0] == {"name": "rmse", "unit": "", "higher": False}


@pytest.mark.parametrize("clients", [3, 64, 65])
def test_what_is_written_comes_back(clients: int, tmp_path: Path) -> None:
    whole = summary({str(i): i / 7 for i in range(clients)})
    whole.write(tmp_path)
    again = RunSummary.read(tmp_path)
    assert again == whole
    assert again != replace(whole, similarity=whole.weights)
    beside = {"weights.npy", "similarity.npy"} if clients > 64 else set()
    assert {path.name for path in tmp_path.iterdir()} == beside | {"summary.json"}
    content = json.loads((tmp_path / "summary.json").read_text())
    assert (content["weights"] == "weights.npy") == (clients > 64)
    assert again.to_json() == content


def test_large_matrices_of_other_rounds_are_never_beside_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off between the matrices and the JSON: there is no result rather than a mixed one."""
    values = {str(i): 0.5 for i in range(65)}
    result(values).write(tmp_path)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedpl.records.record.write_json", cut)
    with pytest.raises(KeyboardInterrupt):
        result(values).write(tmp_path)
    with pytest.raises(UserError, match=r"result\.json cannot be read"):
        MethodResult.read(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_summary_that_was_cut_off_is_none(share: float, tmp_path: Path) -> None:
    summary({"a": 0.5}).write(tmp_path)
    path = tmp_path / "summary.json"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=r"summary\.json cannot be read"):
        RunSummary.read(tmp_path)


def test_a_damaged_matrix_is_refused(tmp_path: Path) -> None:
    summary({str(i): 0.5 for i in range(65)}).write(tmp_path)
    path = tmp_path / "weights.npy"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"summary\.json: weights: expected a matrix"):
        RunSummary.read(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"summary\.json: weights: expected a matrix"):
        RunSummary.read(tmp_path)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("rounds",), "two", r"rounds: expected a whole number, got 'two'"),
        (("rounds",), True, r"rounds: expected a whole number"),
        (("rounds",), ..., r"rounds: is missing"),
        (("seconds", "total"), ..., r"seconds\.total: is missing"),
        (("mean",), ..., r"mean: is missing"),
        (("mean", "aggregated", "accuracy"), "x", r"mean\.aggregated\.accuracy: expected a number"),
        (("clients", "a", "examples"), 1.5, r"clients\.a\.examples: expected a whole number"),
        (("clients", "a", "extra"), 1, r"clients\.a: expected no key 'extra'"),
        (("extra",), 1, r"expected no key 'extra' here"),
        (("classes",), {}, r"classes: expected a list"),
        (("weights",), "../weights.npy", r"weights: .* does not lie in this folder"),
        (("weights",), [[1.0, 2.0]], r"weights: expected a row and a column for each client"),
        (("baselines", "local"), [], r"baselines\.local: expected an object"),
    ],
)
def test_what_is_not_of_the_form_is_refused(keys: tuple[str, ...], value: Any, message: str) -> None:
    content = summary({"a": 0.5}).to_json()
    *way, last = keys
    place = content
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(UserError, match=rf"^run/summary\.json: {message}"):
        RunSummary.from_json(content, "run/summary.json")


def test_files_from_before_metrics_were_declared_are_of_accuracy_and_f1() -> None:
    content = summary({"a": 0.5}).to_json()
    del content["metrics"]
    assert [metric.name for metric in RunSummary.from_json(content).metrics] == ["accuracy", "macro_f1"]


def test_rounds_come_back_line_by_line(tmp_path: Path) -> None:
    lost = replace(record({"a": 0.5, "b": 0.25}), train_loss=math.nan, epsilon=math.inf, validation=None)
    rounds = [record({"a": 0.5, "b": 0.25}, epsilon=1.5, rejected={"b": "late"}), lost]
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(round.to_json(), allow_nan=False) for round in rounds]
    path.write_text("\n".join(lines) + "\n")
    assert json.loads(lines[1])["epsilon"] is None
    assert "validation" not in json.loads(lines[1])
    assert [json.dumps(round.to_json()) for round in read_rounds(path)] == lines
    path.write_text(lines[0] + '\n{"round": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: method: is missing"):
        read_rounds(path)


def test_scores_without_a_value_come_back() -> None:
    """A correlation of constant answers is no number."""
    content = record({"a": math.nan, "b": 0.5}, REGRESSION).to_json()
    assert content["validation"]["clients"]["a"]["tuned"]["pearson"] is None
    assert RoundRecord.from_json(content).to_json() == content


def test_the_schema_page_is_up_to_date() -> None:
    from fedpl.records.schema import page

    told = Path(__file__).parents[2] / "docs" / "schema.md"
    assert told.read_text(encoding="utf-8") == page(), "python -m fedpl.records.schema > docs/schema.md"
    assert "| `bottom_decile` | [Models](#models) |" in page()
