"""A finished run's models at work: answers as CSV, folders to take away, all clients in one batch."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import fedpl
from fedpl.cli import make_parser, read
from fedpl.config import Config
from fedpl.data import TextFiles
from fedpl.data.columns import Columns
from fedpl.export import main as export
from fedpl.predict import main as predict
from tests.conftest import write_csv
from tests.tiny_language import language_model, rows

TEXTS = ["a good seat", "the meal was awful and ugly", "crew", "a great flight of number two"]


@pytest.fixture(scope="module", params=["mean", "first"])
def run(request: Any, small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> fedpl.Run:
    """Heads beside the encoder, and in the architecture's own terms."""
    config = read(make_parser("fit", ""), [*small_run, f"--model.pooling={request.param}", "--rounds=1"])
    folder = tmp_path_factory.mktemp("serving") / "run"
    return fedpl.run(config, run_dir=str(folder), baselines=[], tracking__plots=False, client__lr=0.01)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> fedpl.Run:
    """A run of a language model."""
    folder = tmp_path_factory.mktemp("spoken")
    table = folder / "rows.jsonl"
    lines = [*rows("one", ("yes", "no")), *rows("two", ("no", "yes"))]
    table.write_text("".join(json.dumps(row) + "\n" for row in lines))
    source = TextFiles((str(table),), Columns(prompt="prompt", answer="answer", split="split"))
    changes = {"task": "Generation", "model__path": str(language_model(folder / "llama")), "lora__r": 2}
    more = {"rounds": 1, "accelerator": "cpu", "baselines": [], "tracking__plots": False}
    return fedpl.run(Config(data=source), run_dir=str(folder / "run"), client__lr=0.02, **changes, **more)


def test_all_clients_in_one_batch_answer_as_one_by_one(run: fedpl.Run) -> None:
    models = fedpl.load_all(run)
    assert models.clients == ("one-a", "three-b", "two-a")
    assert models.mixed == (run.config.model.pooling == "mean"), "BERT's pooler is no linear layer"
    texts = [text for text in TEXTS for _ in models.clients]
    clients = list(models.clients) * len(TEXTS)
    found = models.logits(texts, clients)
    for client in models.clients:
        own = fedpl.load(run, client)
        places = [i for i, name in enumerate(clients) if name == client]
        torch.testing.assert_close(found[places], own.logits(TEXTS))
        assert [models.predict(texts, clients)[i] for i in places] == own.predict(TEXTS)
    assert (found[0] - found[1]).abs().max() > 1e-3, "the clients' models differ"
    with pytest.raises(fedpl.UserError, match="no adapter of 'nobody'; there are 'one-a'"):
        models.logits(["a"], ["nobody"])


def test_a_merged_model_needs_no_peft(
    run: fedpl.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the code in its folder."""
    out = tmp_path / "merged"
    assert export([str(run.path), "--client", "one-a", "--merge", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    monkeypatch.chdir(out)
    (code,) = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    assert "peft" not in code
    names: dict[str, Any] = {}
    exec(code, names)
    wanted = fedpl.load(run, "one-a").logits(["a text"])
    torch.testing.assert_close(names["logits"].detach(), wanted, atol=1e-5, rtol=1e-4)
    if run.config.model.pooling == "first":
        assert type(names["model"]).__name__ == "BertForSequenceClassification"
        assert AutoModelForSequenceClassification.from_pretrained(out).config.id2label == {0: "no", 1: "yes"}
    with pytest.raises(fedpl.UserError, match="holds something already"):
        export([str(run.path), "--client", "one-a", "--out", str(out)])


def test_an_adapter_alone(run: fedpl.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([str(run.path), "--client", "two-a"]) == 0
    out = Path(capsys.readouterr().out.strip())
    assert out == run.path / "exports" / "two-a"
    own = run.path / "adapters" / "two-a"
    assert {p.name for p in out.iterdir()} == {p.name for p in own.iterdir()}
    page = (out / "README.md").read_text()
    summary = run.summary
    assert f"two-a {summary.weights[summary_row(run, 'two-a')][summary_row(run, 'two-a')]:+.3f}" in page
    shutil.rmtree(out.parent)


def test_clients_as_tables(run: fedpl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export([str(run.path), "--csv", f"--out={tmp_path}"]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("clients.csv", "given.csv")]
    (row,) = [r for r in csv.DictReader((tmp_path / "clients.csv").open()) if r["client"] == "two-a"]
    own = run.summary.clients["two-a"]
    assert int(row["examples"]) == own.examples
    assert own.scores.aggregated is not None
    assert float(row["aggregated/accuracy"]) == own.scores.aggregated["accuracy"]
    weights = run.weights(1).abs()  # of the only round
    assert float(row["taken from others"]) == pytest.approx(weights.loc["two-a"].drop("two-a").sum())
    (given,) = [r for r in csv.DictReader((tmp_path / "given.csv").open()) if r["taken by"] == "two-a"]
    assert float(given["one-a"]) == pytest.approx(weights.loc["two-a", "one-a"])
    assert run.receivers("one-a") == [c for c in run.clients[1:] if weights.loc[c, "one-a"] > 0]
    with pytest.raises(fedpl.UserError, match="has no client 'nobody'"):
        run.receivers("nobody")


def summary_row(run: fedpl.Run, client: str) -> int:
    return list(run.summary.clients).index(client)


def test_predictions_as_csv(run: fedpl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clients = ("one-a", "three-b", "one-a", "two-a")
    table = write_csv(
        tmp_path / "t.csv", [{"text": t, "who": c} for t, c in zip(TEXTS, clients, strict=True)]
    )
    assert predict([str(run.path), str(table), "--client", "one-a"]) == 0
    found = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    own = fedpl.load(run, "one-a")
    assert [row["label"] for row in found] == own.predict(TEXTS)
    shares = torch.tensor([[float(row["p(no)"]), float(row["p(yes)"])] for row in found])
    torch.testing.assert_close(shares, own.logits(TEXTS).softmax(-1), atol=1e-5, rtol=0)
    assert predict([str(run.path), str(table), "--clients", "who", f"--out={tmp_path / 'out.csv'}"]) == 0
    found = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [(row["who"], row["text"]) for row in found] == list(zip(clients, TEXTS, strict=True))
    wanted = [fedpl.load(run, c).predict([t])[0] for c, t in zip(clients, TEXTS, strict=True)]
    assert [row["label"] for row in found] == wanted
    for words, message in (
        (["--client", "nobody"], "nothing of client 'nobody'"),
        (["--client", "one-a", "--text", "body"], "no column 'body'"),
        ([], "one of the arguments --client --clients is required"),
    ):
        with pytest.raises(fedpl.UserError, match=message):
            predict([str(run.path), str(table), *words])


def test_language_models_are_served_likewise(
    spoken: fedpl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = ["one?", "a much longer prompt than the other ones?", "two", "one?"]
    clients = ["one", "two", "one", "two"]
    models = fedpl.load_all(spoken)
    assert models.mixed
    found = models.predict(prompts, clients, max_new_tokens=4)
    alone = {client: fedpl.load(spoken, client) for client in set(clients)}
    assert found == [
        alone[c].predict([p], max_new_tokens=4)[0] for c, p in zip(clients, prompts, strict=True)
    ]
    table = write_csv(tmp_path / "t.csv", [{"prompt": p} for p in prompts])
    assert predict([str(spoken.path), str(table), "--client=two", "--max_new_tokens=4"]) == 0
    lines = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["answer"] for row in lines] == alone["two"].predict(prompts, max_new_tokens=4)
    export([str(spoken.path), "--client=one", "--merge", f"--out={tmp_path / 'merged'}"])
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    ids = torch.tensor([[5, 9, 17, 40]])
    with torch.no_grad():
        torch.testing.assert_close(
            merged(input_ids=ids).logits, alone["one"].model(input_ids=ids).logits, atol=1e-4, rtol=1e-4
        )
