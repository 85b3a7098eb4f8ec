"""Runs whose clients' models write answers: scores, files, and what they do not depend on."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from rich.console import Console
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM, AutoTokenizer

from fedpl.config import Config, with_changes
from fedpl.data import TextFiles
from fedpl.data.columns import Columns
from fedpl.errors import UserError
from fedpl.problems import check
from fedpl.records.results import RunSummary
from fedpl.replay.__main__ import main as replay
from fedpl.runs.experiment import run
from fedpl.runs.resume import saved_configuration
from tests.made_up import Stopping
from tests.runs.test_language import ended, results
from tests.tiny_language import language_model, rows

METRICS = ["rouge1", "rouge2", "rougeL", "exact_match", "loss", "perplexity"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Three clients, of which one has no test data; a model that learns two letters."""
    folder = tmp_path_factory.mktemp("data")
    lines = [*rows("one", ("yes", "no")), *rows("two", ("no", "yes")), *rows("three", ("ja", "nein"), False)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    columns = Columns(prompt="prompt", answer="answer", split="split")
    source = TextFiles((str(folder / "rows.jsonl"),), columns, small_clients="train_only")
    return with_changes(
        Config(data=source),
        {
            "task": "Generation",
            "task.decoding": {"max_new_tokens": 6},
            "model.path": str(language_model(tmp_path_factory.mktemp("llama"))),
            "lora.r": 8,
            "lora.alpha": 64,
            "client.lr": 0.05,
            "client.epochs": 3,
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


def predictions(folder: Path) -> dict[str, list[dict[str, str]]]:
    found = sorted((folder / "predictions").iterdir())
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in found}


def test_scores_are_those_of_the_answers_on_disk(done: Path) -> None:
    summary, written = RunSummary.read(done), predictions(done)
    assert [metric.name for metric in summary.metrics] == METRICS
    assert list(written) == ["one", "two"]  # three has no test data
    scorer = RougeScorer(["rouge1", "rougeL"])
    for client, lines in written.items():
        found = summary.clients[client].scores.aggregated
        assert found is not None
        for name in ("rouge1", "rougeL"):
            mean = sum(scorer.score(line["right"], line["answer"])[name].fmeasure for line in lines) / len(
                lines
            )
            assert found[name] == pytest.approx(mean)
        same = sum(line["right"] == line["answer"] for line in lines) / len(lines)
        assert found["exact_match"] == same
    answers = {line["answer"] for lines in written.values() for line in lines}
    assert answers & {"yes", "no"}, f"nothing was learnt: {answers}"
    floor = summary.clients["one"].scores.majority
    assert floor is not None
    assert floor["rouge1"] >= 0.5, "one of two answers is a constant"


def test_answers_are_those_of_plain_peft(done: Path, config: Config) -> None:
    base = AutoModelForCausalLM.from_pretrained(config.model.path)
    model = PeftModel.from_pretrained(base, str(done / "adapters" / "two")).eval()
    tokenizer = AutoTokenizer.from_pretrained(config.model.path)
    for line in predictions(done)["two"]:
        ids = torch.tensor([tokenizer(line["prompt"])["input_ids"]])
        with torch.no_grad():
            found = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False
            )
        assert tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True) == line["answer"]


@pytest.mark.parametrize("rounds", [1, 2])
def test_cut_off_it_writes_the_same(done: Path, config: Config, rounds: int, tmp_path: Path) -> None:
    """After the last round nothing is known of what was written: it is written again."""
    whole = with_changes(config, {"run_dir": str(tmp_path / "run")})
    with pytest.raises(KeyboardInterrupt):
        run(whole, Console(quiet=True), watchers=[Stopping(rounds)])
    run(saved_configuration(tmp_path / "run"), Console(quiet=True), resume=tmp_path / "run")
    assert predictions(tmp_path / "run") == predictions(done)
    assert results(tmp_path / "run") == results(done)


def test_what_is_drawn_does_not_depend_on_the_company(config: Config, tmp_path: Path) -> None:
    drawn = {"task.decoding": {"max_new_tokens": 5, "temperature": 1.0, "top_k": 20, "rows": 3}, "rounds": 1}
    one = ended(config, tmp_path / "one", **drawn, **{"client.cohort_size": 1})
    all = ended(config, tmp_path / "all", **drawn, **{"client.cohort_size": 3})
    assert predictions(one) == predictions(all)
    assert len({line["answer"] for line in predictions(one)["one"]}) > 1


def test_replay_writes_under_another_rule(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay([str(done), "--methods", "fedbip_l"]) == 0
    assert "Rouge1" in capsys.readouterr().out
    (found,) = (done / "replays").glob("*.json")
    assert "fedbip_l" in found.read_text()


def test_two_adapters_at_once_write_the_same_in_any_company(config: Config, tmp_path: Path) -> None:
    """FedDPA, whose clients use an own adapter beside the common one; cut off after a round, too."""
    both = with_changes(config, {"method": "feddpa"})
    one = ended(both, tmp_path / "one", **{"client.cohort_size": 1})
    all = ended(both, tmp_path / "all", **{"client.cohort_size": 3})
    assert predictions(one) == predictions(all)
    scores = {client: own.scores for client, own in RunSummary.read(all).clients.items()}
    for client, own in RunSummary.read(one).clients.items():
        if own.scores.tuned is not None:  # three has no test data
            assert own.scores.tuned == pytest.approx(scores[client].tuned, rel=1e-3)
    assert any(own.tuned != own.aggregated for own in scores.values())
    cut = with_changes(both, {"client.cohort_size": 3, "run_dir": str(tmp_path / "cut")})
    with pytest.raises(KeyboardInterrupt):
        run(cut, Console(quiet=True), watchers=[Stopping(1)])
    run(saved_configuration(tmp_path / "cut"), Console(quiet=True), resume=tmp_path / "cut")
    assert predictions(tmp_path / "cut") == predictions(all)
    assert results(tmp_path / "cut") == results(all)


def test_no_beams_are_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"task\.decoding\.beams: at least 1, got 0"):
        check(with_changes(config, {"task.decoding": {"beams": 0}}))
