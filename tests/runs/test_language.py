"""Runs of language models from the command line's settings to adapters that plain PEFT loads."""

import json
import random
from pathlib import Path

import pytest
from rich.console import Console

import fedpl
from fedpl.config import Config, check
from fedpl.data import TextFiles
from fedpl.data.columns import Columns
from fedpl.records.results import RunSummary
from fedpl.runs.experiment import run
from tests.tiny_language import language_model

COLUMNS = Columns(prompt="prompt", answer="answer", split="split")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("llama"))


def rows(client: str, answers: tuple[str, str], tested: bool = True) -> list[dict[str, str]]:
    stream = random.Random(client)
    splits = ("train",) * 8 + ("validation", "test") * (2 if tested else 0)
    found = []
    for i, split in enumerate(splits):
        prompt = "".join(stream.choices("abcdefgh ", k=12)) + "?"
        found.append({"prompt": prompt, "answer": answers[i % 2], "client": client, "split": split})
    return found


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clients, of which one has no test data."""
    path = tmp_path_factory.mktemp("table") / "rows.jsonl"
    lines = [*rows("one", ("yes", "no")), *rows("two", ("no", "yes")), *rows("three", ("ja", "nein"), False)]
    path.write_text("".join(json.dumps(row) + "\n" for row in lines))
    return path


@pytest.fixture(scope="module")
def config(llama: Path, table: Path) -> Config:
    tree = {"data.class_path": "fedpl.data.TextFiles"}
    del tree
    source = TextFiles((str(table),), COLUMNS, small_clients="train_only")
    return fedpl.config.with_changes(
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
            "baselines": ["local"],
            "store_vectors": True,
            "tracking.plots": False,
            "tracking.wandb.mode": "disabled",
        },
    )


@pytest.fixture(scope="module")
def done(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    config = fedpl.config.with_changes(config, {"run_dir": str(folder)})
    check(config)
    return run(config, Console(quiet=True))


def test_a_run_ends_with_losses_and_adapters(done: Path) -> None:
    summary = RunSummary.read(done)
    assert [metric.name for metric in summary.metrics] == ["loss", "perplexity"]
    found = summary.clients["one"].scores
    assert found.aggregated is not None
    assert found.majority is not None
    assert found.aggregated["loss"] < found.majority["loss"]
    assert summary.clients["three"].scores.aggregated is None
    assert summary.classes == ()
