"""Shared by all tests: no network, no W&B server, one small model and one small table, made here."""

import atexit
import csv
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Models are tiny here: a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs are compiled once for all processes of the tests, and not kept in the user's cache.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="fedpl-programs-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import pytest

from tests.disk import Disk

GOOD = ("good", "great", "fine", "lovely", "happy")
BAD = ("bad", "awful", "poor", "ugly", "sad")
THINGS = ("flight", "seat", "crew", "meal", "gate", "plane", "bag", "staff", "trip", "desk", "queue", "price")


def small_rows(clients: tuple[str, ...], per_client: int = 24) -> list[dict[str, str]]:
    """Sentences of known sentiment; a client whose name ends in b answers the other way round."""
    rows = []
    for client in clients:
        for i in range(per_client):
            words = GOOD if i % 2 else BAD
            thing = THINGS[i % len(THINGS)]
            text = f"the {thing} number {i} of {client} was {words[i % 5]} and {words[(i + 1) % 5]}"
            label = ("no", "yes")[i % 2 ^ client.endswith("b")]
            split = "test" if i < 4 else "validation" if i < 8 else "train"
            rows.append({"text": text, "label": label, "client": client, "split": split})
    return rows


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk on which only that survives a power cut which was forced onto it."""
    made = Disk(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def image_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the user's cache, in which decoded images are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fedpl" / "images"


@pytest.fixture(scope="session")
def small_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file of three clients with declared splits."""
    folder = tmp_path_factory.mktemp("table")
    return write_csv(folder / "small.csv", small_rows(("one-a", "two-a", "three-b")))


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random two-layer BERT and a word tokenizer, in Hugging Face layout."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "the", "number", "of", "was", "and", *GOOD, *BAD, *THINGS]
    words += ["one", "two", "three", "-", "a", "b"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    folder = tmp_path_factory.mktemp("model")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_run(small_model: Path, small_table: Path) -> list[str]:
    """Command-line arguments of a run that takes seconds."""
    return [
        f"--model.path={small_model}",
        "--data=fedpl.data.TextFiles",
        f"--data.paths=[{small_table}]",
        "--data.columns.split=split",
        "--lora.r=2",
        "--client.batch_size=4",
        "--client.epochs=1",
        "--rounds=2",
        "--accelerator=cpu",
    ]
