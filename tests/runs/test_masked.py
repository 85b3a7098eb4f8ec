"""Clients whose label sets differ: what is scored is what is served, resumed and onboarded."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import fedpl
from fedpl.cli import make_parser, read
from fedpl.config import Config
from fedpl.export import main as export
from tests.conftest import small_rows, write_csv

LABELS = {"one-a": ("no", "yes"), "two-b": ("cold", "warm"), "three-a": ("no", "warm")}


def table(path: Path, labels: dict[str, tuple[str, str]] = LABELS) -> Path:
    """A client for each, with classes of its own."""
    rows = small_rows(tuple(labels))
    called = [row | {"label": labels[row["client"]][row["label"] == "yes"]} for row in rows]
    return write_csv(path, called)


@pytest.fixture(scope="module")
def config(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Config:
    rows = table(tmp_path_factory.mktemp("rows") / "t.csv")
    more = [f"--data.paths=[{rows}]", "--client.mask_absent_classes=true", "--client.lr=0.01"]
    return read(make_parser("fit", ""), [*small_run, *more, "--tracking.plots=false"])


def answered(config: Config, run: fedpl.Run) -> None:
    """Each client's adapter reaches what the summary says, with its own classes alone."""
    data = config.data.load(config.seed)
    models = fedpl.load_all(run)
    for client in data.clients:
        texts = client.test.texts
        own = fedpl.load(run, client.id).predict(texts)
        assert set(own) <= set(LABELS[client.id])
        assert models.predict(texts, [client.id] * len(texts)) == own
        right = [data.classes[label] for label in client.test.labels]
        scores = run.summary.clients[client.id].scores.aggregated
        assert scores is not None
        assert scores["accuracy"] == sum(a == b for a, b in zip(own, right, strict=True)) / len(own)


@pytest.mark.parametrize(
    ("method", "executor"),
    [("fedavg", "here"), ("fedbip", "here"), ("fedbip_g", "here"), ("fedavg", "processes")],
)
def test_what_is_scored_is_what_is_served(config: Config, method: str, executor: str, tmp_path: Path) -> None:
    named = Config.of(method).aggregator
    changes: dict[str, Any] = {"executor__kind": executor, "run_dir": str(tmp_path / "run")}
    run = fedpl.run(config, aggregator=named, baselines=["local"], **changes)
    answered(config, run)


def test_a_masked_model_without_peft(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fedpl.run(config, run_dir=str(tmp_path / "run"), baselines=[])
    out = tmp_path / "merged"
    assert export([str(run.path), "--client", "one-a", "--merge", "--out", str(out)]) == 0
    monkeypatch.chdir(out)
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    shares = names["logits"].detach().softmax(-1)
    torch.testing.assert_close(shares, fedpl.load(run, "one-a").logits(["a text"]).softmax(-1))
    assert [share > 0 for share in shares[0].tolist()] == [
        label in LABELS["one-a"] for label in run.summary.classes
    ]


def test_a_newcomer_answers_with_its_own_classes(config: Config, tmp_path: Path) -> None:
    run = fedpl.run(config, run_dir=str(tmp_path / "run"), baselines=[], store_vectors=True)
    rows = table(tmp_path / "new.csv", {"four-a": ("cold", "yes")})
    (found,) = run.onboard(rows)
    assert found.client == "four-a"
    model = fedpl.load(run, "four-a", newcomer=True)
    assert set(model.predict(["the crew was good", "an awful gate", "the meal"])) <= {"cold", "yes"}
    assert (model.logits(["the seat"])[0] > -1000).sum() == 2


def test_what_a_client_chose_answers_with_its_own_classes(config: Config, tmp_path: Path) -> None:
    changes = {"client__guard": "validation", "client__lr": 0.03, "rounds": 4, "baselines": ["local"]}
    run = fedpl.run(
        config, aggregator=Config.of("fedavg").aggregator, run_dir=str(tmp_path / "run"), **changes
    )
    chosen = {path.name: (path / "adapter_config.json").is_file() for path in (run.path / "best").iterdir()}
    assert any(chosen.values()), "no client chose anything but the aggregate"
    for client, labels in LABELS.items():
        logits = fedpl.load(run, client, model="best").logits(["a seat", "the awful crew"])
        assert [found > -1000 for found in logits[0].tolist()] == [
            label in labels for label in run.summary.classes
        ]
