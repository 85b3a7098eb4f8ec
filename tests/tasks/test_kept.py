"""Tokens of many rows: as those in memory, made once, whole whatever happens, for whatever they depend on."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpl.data import Dialogues, Message, Pairs, Rated, Split
from fedpl.model.settings import ModelConfig
from fedpl.tasks import Choice, Classification, Generation, Regression, Task, kept
from fedpl.tasks.examples import Examples
from tests.conftest import BAD, GOOD

Parts = dict[tuple[str, str], tuple[Split, bool]]
TEXTS = tuple(
    f"the {a} of {b}" + " was good" * (i % 4) for i, (a, b) in enumerate(zip(GOOD, BAD, strict=True))
)
LABELS = (0, 1, 0, 1, 0)


def talks() -> Dialogues:
    said = tuple(
        (Message("user", text), Message("assistant", ("good", "bad")[i % 2])) for i, text in enumerate(TEXTS)
    )
    return Dialogues(TEXTS, LABELS, said, (("good", "bad"),) * 5, tuple(f"row {i}" for i in range(5)))


KINDS: dict[str, tuple[Task, Split]] = {
    "texts": (Classification(), Split(TEXTS, LABELS)),
    "pairs": (Classification(), Pairs(TEXTS, LABELS, TEXTS[::-1])),
    "numbers": (Regression(0.0, 9.0), Rated(TEXTS, (0,) * 5, (), (1.0, 2.0, 3.0, 4.5, 5.0))),
    "pairs with numbers": (
        Regression(0.0, 9.0),
        Rated(TEXTS, (0,) * 5, TEXTS[::-1], (1.0, 2.0, 3.0, 4.5, 5.0)),
    ),
    "answers": (Generation("the {prompt} was "), talks()),
    "options": (Choice("the {prompt} was "), talks()),
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the user's cache; few rows are many."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "MANY", 1)
    monkeypatch.setattr(kept, "_TOGETHER", 2)
    monkeypatch.setattr(kept, "_SAFE", 3)
    return tmp_path / "cache" / "fedpl" / "texts"


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> ModelConfig:
    """A tokenizer with an end token, which answers need; texts of up to 9 tokens."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in small_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "number"}))
    return ModelConfig(path=str(folder), max_length=9)


def parts_of(split: Split) -> Parts:
    empty = replace(split, **{name: () for name in vars(split)})
    return {("a", "train"): (split, False), ("a", "test"): (split, True), ("b", "train"): (empty, False)}


def files(cache: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in cache.glob("*/*")}


def same(one: Examples, other: Examples) -> None:
    for name in ("lengths", "mass", "marked", "cut", "pad"):
        assert getattr(one, name) == getattr(other, name)
    assert one.tokens.equal(other.tokens)
    assert one.targets.equal(other.targets)
    assert one.targets.dtype == other.targets.dtype
    order = list(range(len(one)))[::-1]
    if order:
        own, right = one.collate(order).inputs, other.collate(order).inputs
        assert own.keys() == right.keys()
        assert all(own[name].equal(right[name]) and own[name].dtype == right[name].dtype for name in own)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_tokens_are_those_in_memory_and_made_once(
    kind: str, cache: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, split = KINDS[kind]
    parts = parts_of(split)
    encode = task.encoder(model)
    right = {key: encode(*part) for key, part in parts.items()}
    for time in range(2):
        encode = task.encoder(model)  # as another process would
        if time:
            monkeypatch.setattr(encode, "sequences", lambda said: pytest.fail("made again"))
        found = kept.encoded(encode, parts)
        assert list(found) == list(parts)
        for key, own in found.items():
            same(own, right[key])
        flats = {id(own.sequences.flat) for own in found.values()}
        assert len(flats) == 1, "no copies by client"
        flat = found["a", "train"].sequences.flat
        assert isinstance(flat, np.memmap)
        assert not flat.flags.writeable
    assert any(own.marked and (own.sequences.packed < 0).any() for own in found.values()) == (
        kind not in ("texts", "numbers")
    ), "learned tokens and second texts are told apart"


def test_rows_are_known_whatever_split_they_are_in(cache: Path, model: ModelConfig) -> None:
    """Another seed, other clients, labels and more rows: what was there is not made again."""
    task, made = Classification(), []

    def run(split: Split) -> dict[Any, Examples]:
        encode = task.encoder(model)
        sequences = encode.sequences
        encode.sequences = lambda said: made.append(list(said.rows)) or sequences(said)  # type: ignore[method-assign]
        return kept.encoded(encode, {"x": (split, False)})

    run(Split(TEXTS, LABELS))
    assert [len(rows) for rows in made] == [2, 1, 2]
    made.clear()
    found = run(Split((*TEXTS[::-1], "the crew", TEXTS[0]), (1, 0, 1, 0, 1, 0, 1)))["x"]
    assert made == [[("the crew",)]]
    same(found, task.encoder(model)(Split((*TEXTS[::-1], "the crew", TEXTS[0]), (1, 0, 1, 0, 1, 0, 1))))


def test_whatever_tokens_depend_on_has_a_folder_of_its_own(cache: Path, model: ModelConfig) -> None:
    def keep(task: Task, model: ModelConfig, kind: str) -> int:
        kept.encoded(task.encoder(model), parts_of(KINDS[kind][1]))
        return len(list(cache.iterdir()))

    assert keep(Classification(), model, "texts") == 1
    assert keep(Classification(), model, "pairs") == 1
    assert keep(Regression(0.0, 9.0), model, "numbers") == 1, "the texts are the same"
    assert keep(Classification(), replace(model, max_length=8), "texts") == 2
    assert keep(Generation("the {prompt} was "), model, "answers") == 3
    assert keep(Choice("the {prompt} was "), model, "options") == 3
    assert keep(Generation("a {prompt} was "), model, "answers") == 4
    folder = Path(model.path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"type_vocab_size": 1}))
    assert keep(Classification(), model, "texts") == 5, "it is not told which text of a pair"
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"] |= {
        "good": words["model"]["vocab"]["bad"],
        "bad": words["model"]["vocab"]["good"],
    }
    (folder / "tokenizer.json").write_text(json.dumps(words))
    task = Classification()
    (found,) = kept.encoded(task.encoder(model), {0: (KINDS["texts"][1], False)}).values()
    same(found, task.encoder(model)(KINDS["texts"][1]))
    assert len(list(cache.iterdir())) == 6
    dated = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{{ strftime_now('%d') }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(dated | {"chat_template": template}))
    assert Generation("chat").encoder(model).settings is None
    assert keep(Generation("chat"), model, "answers") == 6, "tokens with a date are of today"


def test_few_rows_leave_nothing(cache: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MANY", 11)
    found = kept.encoded(Classification().encoder(model), parts_of(KINDS["texts"][1]))
    assert len(found) == 3
    assert not cache.exists()


@pytest.mark.parametrize("harm", ["half an entry", "zeros", "tokens lost", "killed between"])
def test_what_a_killed_run_or_a_power_cut_leaves_is_mended(
    harm: str, cache: Path, model: ModelConfig
) -> None:
    task, (split, _) = Classification(), parts_of(KINDS["texts"][1])["a", "train"]
    encode = task.encoder(model)
    kept.encoded(encode, {0: (split, False)})
    (folder,) = cache.iterdir()
    right = files(cache)
    index, tokens = (folder / name for name in ("index", "tokens"))
    entry = kept._ENTRY.itemsize
    match harm:
        case "half an entry":
            os.truncate(index, index.stat().st_size - entry // 2)
        case "zeros":
            index.write_bytes(index.read_bytes()[:-entry] + bytes(entry))
        case "tokens lost":
            os.truncate(tokens, tokens.stat().st_size - 4)
        case "killed between":
            os.truncate(index, index.stat().st_size - 2 * entry)
    (found,) = kept.encoded(task.encoder(model), {0: (split, False)}).values()
    same(found, encode(split))
    assert files(cache) == right


def test_a_cache_that_cannot_be_written_is_told_of(
    cache: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task, parts = Classification(), parts_of(KINDS["texts"][1])
    encode = task.encoder(model)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        found = kept.encoded(encode, parts)
    same(found["a", "train"], encode(*parts["a", "train"]))
    assert "No space left on device; they are encoded in memory, as every run will" in caplog.text
    assert not any(files(cache).values()), "its room is given back"
    caplog.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path(model.path) / "config.json"))
    found = kept.encoded(encode, parts)
    same(found["a", "train"], encode(*parts["a", "train"]))
    assert "Not a directory; they are encoded in memory" in caplog.text


_ANOTHER = """
import sys
from fedpl.data import Split
from fedpl.model.settings import ModelConfig
from fedpl.tasks import Classification, kept
kept.MANY, kept._TOGETHER, kept._SAFE = 1, 7, 20
encode = Classification().encoder(ModelConfig(path=sys.argv[1], max_length=9))
sys.stdin.readline()
split = Split(tuple(f"the crew was {'good ' * (i % 5)} {i}" for i in range(500)), (0,) * 500)
(found,) = kept.encoded(encode, {0: (split, False)}).values()
assert found.tokens.equal(encode(split).tokens)
"""


def test_two_processes_that_start_at_once_make_them_once(cache: Path, model: ModelConfig) -> None:
    command = [sys.executable, "-c", _ANOTHER, model.path]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    assert [one.wait() for one in both] == [0, 0]
    (folder,) = cache.iterdir()
    entries = np.frombuffer((folder / "index").read_bytes(), kept._ENTRY)
    assert len(entries) == len(set(entries["digest"].tolist())) == 500
    assert (folder / "tokens").stat().st_size == 4 * entries["length"].sum()
    assert folder.stat().st_mode & 0o77 == 0, "texts are the user's own"
