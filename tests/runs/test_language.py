"""Runs of language models from the command line's settings to adapters that plain PEFT loads."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

import fedpl
from fedpl.config import Config, with_changes
from fedpl.data import TextFiles
from fedpl.data.columns import Columns
from fedpl.errors import UserError
from fedpl.presets import names
from fedpl.problems import check
from fedpl.records.card import Card
from fedpl.records.choice import Choice
from fedpl.records.results import RunSummary
from fedpl.replay.__main__ import main as replay
from fedpl.runs.experiment import run
from fedpl.runs.hearing import opening
from fedpl.runs.modelcard import page
from fedpl.runs.prepared import prepare
from fedpl.tasks import Generation
from tests.tiny_language import VOCABULARY, language_model, rows

COLUMNS = Columns(prompt="prompt", answer="answer", split="split")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clients, of which one has no test data."""
    path = tmp_path_factory.mktemp("table") / "rows.jsonl"
    lines = [*rows("one", ("yes", "no")), *rows("two", ("no", "yes")), *rows("three", ("ja", "nein"), False)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


@pytest.fixture(scope="module")
def config(llama: Path, table: Path) -> Config:
    source = TextFiles((str(table),), COLUMNS, small_clients="train_only")
    return with_changes(
        Config(data=source),
        {
            "task": "Generation",
            "model.path": str(llama),
            "lora.r": 2,
            "lora.dropout": 0.1,
            "client.epochs": 1,
            "client.batch_size": 4,
            "rounds": 2,
            "accelerator": "cpu",
            "baselines": [],
            "store_vectors": True,
            "tracking.plots": False,
            "tracking.wandb.mode": "disabled",
        },
    )


@pytest.fixture(scope="module")
def done(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ended(config, tmp_path_factory.mktemp("run") / "run")


def ended(config: Config, folder: Path, **changes: Any) -> Path:
    config = with_changes(config, {"run_dir": str(folder), **changes})
    check(config)
    return run(config, Console(quiet=True))


def results(folder: Path) -> Any:
    found = json.loads((folder / "summary.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def test_a_run_ends_with_losses_beside_their_floor(done: Path) -> None:
    summary = RunSummary.read(done)
    assert [metric.name for metric in summary.metrics] == ["loss", "perplexity"]
    found = summary.clients["one"].scores
    assert found.aggregated is not None
    assert found.tuned is not None
    assert found.majority is not None
    assert found.aggregated["loss"] < math.log(VOCABULARY), "better than it began"
    assert found.majority["loss"] < math.log(VOCABULARY) / 2, "answers repeat: their letters are known"
    assert found.majority["perplexity"] == pytest.approx(math.exp(found.majority["loss"]))
    assert summary.clients["three"].scores.aggregated is None, "it has no test data"
    assert summary.classes == ()
    assert summary.floor_name == "without learning"


def test_plain_peft_answers_as_the_run_says(done: Path, config: Config, llama: Path) -> None:
    """The adapter on transformers' own model: the loss of the summary from logits at all positions."""
    folder = done / "adapters" / "one"
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), str(folder)).eval()
    tokenizer = AutoTokenizer.from_pretrained(llama)
    total, number = 0.0, 0
    for row in map(json.loads, Path(config.data.paths[0]).read_text().splitlines()):  # type: ignore[attr-defined]
        if (row["client"], row["split"]) != ("one", "test"):
            continue
        before = tokenizer(f"### Instruction:\n{row['prompt']}\n\n### Response:\n")["input_ids"]
        answer = [*tokenizer(row["answer"])["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([before + answer])).logits[0, len(before) - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        number += len(answer)
    scores = RunSummary.read(done).clients["one"].scores.aggregated
    assert scores is not None
    assert total / number == pytest.approx(scores["loss"], rel=1e-5)
    assert not (folder / "head.safetensors").exists()
    assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "CAUSAL_LM"


def test_a_clients_model_answers(done: Path) -> None:
    model = fedpl.load(done, "one")
    assert model.card.loads_as == "AutoModelForCausalLM"
    answers = model.predict(["a question?", "b?"], max_new_tokens=3)
    assert [len(answer) <= 3 for answer in answers] == [True, True]
    with pytest.raises(UserError, match="answers in words"):
        model.logits(["a"])


@pytest.mark.parametrize("template", ["chat", "Q: {prompt} A: "])
def test_the_model_card_answers_like_fedpl(
    template: str, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code that it shows, run as it stands."""
    shutil.copytree(done, tmp_path / "run")
    settings = tmp_path / "run" / "config.yaml"
    settings.write_text(settings.read_text().replace("template: alpaca_short", f"template: '{template}'"))
    folder = tmp_path / "run" / "adapters" / "one"
    card = page(Card.read(folder), Generation().metrics, done, template)
    code = card.split("With PEFT alone")[1].split("```python\n")[1].split("```")[0].replace("=80", "=5")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    assert fedpl.load(tmp_path / "run", "one").predict(["a prompt"], max_new_tokens=5) == [names["answer"]]


def test_what_is_said_at_first(config: Config) -> None:
    config = with_changes(config, {"baselines": ["fedbip_g"]})
    lines = list(opening(config, prepare(config).executor.join(), Path("x"), None))
    assert "fedpl: fedbip_g: the task has no head: whole adapters are compared in its place" in lines
    (floor,) = (line for line in lines if "without learning" in line)
    assert re.search(r"loss 1\.\d+$", floor)


def test_cut_off_and_gone_on_with_it_ends_the_same(done: Path, config: Config, tmp_path: Path) -> None:
    class Killer:
        def round(self, *_: Any) -> None:
            raise KeyboardInterrupt

        def finish(self, *_: Any) -> None:
            pytest.fail("it was cut off")

    cut = with_changes(config, {"run_dir": str(tmp_path / "cut")})
    with pytest.raises(KeyboardInterrupt):
        run(cut, Console(quiet=True), [Killer()])
    fedpl.go_on(tmp_path / "cut")
    assert results(tmp_path / "cut") == results(done)


def test_replay_scores_and_does_not_train(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedpl.training.worker.Worker.fit", lambda *_: pytest.fail("trained"))
    assert replay([str(done), "--methods", "fedbip_l"]) == 0
    (written,) = (done / "replays").glob("*.json")
    found = json.loads(written.read_text())["readings"]
    readings = {(one["rule"], one["reading"]): one for one in found}
    assert ("fedbip_l", "chain") in readings
    assert "loss" in json.dumps(readings["fedbip_l", "chain"])


def test_one_client(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows("one", ("yes", "no"))))
    folder = ended(config, tmp_path / "run", **{"data.paths": [str(path)], "task": "Choice", "rounds": 1})
    scores = RunSummary.read(folder).clients["one"].scores
    assert scores.aggregated is not None
    assert scores.majority == {"accuracy": 0.5}
    assert 0 <= scores.aggregated["accuracy"] <= 1
    assert fedpl.load(folder, "one").predict(["a?"], max_new_tokens=2)


HEADS = {"fedper", "fedrep"}


@pytest.mark.parametrize("method", names("method"))
def test_methods_that_need_a_head_are_refused_by_name(method: str, config: Config) -> None:
    chosen = with_changes(config, {"method": method})
    if method in HEADS:
        with pytest.raises(UserError, match=f"{method}: the task has no head"):
            check(chosen)
        with pytest.raises(UserError, match=f"{method}: the task has no head"):
            check(with_changes(config, {"baselines": [method]}))
    else:
        check(chosen)


@pytest.mark.parametrize(
    "changes",
    [
        {"client.head_lr": 0.5},
        {"client.mask_absent_classes": True},
        {"model.pooling": "last"},
        {"faults.attack": "label_flip", "faults.hostile": 0.4},
        {"task": {"class_path": "Generation", "init_args": {"template": "no place"}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_would_do_nothing_are_refused(changes: dict[str, Any], config: Config) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        check(with_changes(config, changes))


def test_a_newcomer_of_a_language_model(done: Path, tmp_path: Path) -> None:
    table = tmp_path / "acme.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows("acme", ("yes", "no"))))
    (found,) = fedpl.Run.open(done).onboard(table, start="nearest")
    assert found.scores["test"].tuned["loss"] < found.scores["test"].local["loss"]
    assert fedpl.load(done, "acme", newcomer=True).predict(["one?"], max_new_tokens=2)
    page = (done / "newcomers" / "acme" / "README.md").read_text()
    assert "weights of the last round, its own first: acme +" in page


def test_a_guard_compares_losses(config: Config, tmp_path: Path) -> None:
    guarded = {"client.guard": "validation", "method": "fedbip_t"}
    with pytest.raises(UserError, match="client 'three' has none"):
        prepare(with_changes(config, guarded))
    folder = ended(config, tmp_path / "run", **guarded, **{"data.small_clients": "drop"})
    choice = Choice.read(folder / "best" / "one")
    assert set(choice.over) == {"tuned", "mixture"}
    assert choice.test is not None
    assert choice.test["loss"] > 0
    assert fedpl.load(folder, "one", model="best").predict(["a?"], max_new_tokens=2)
