"""Two texts that belong together: read, dealt, named by digests, refused where nothing tells them apart."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedpl.data import ClientData, Columns, Pairs, Split, TextFiles, describe
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.site.census import digest_of
from fedpl.tasks import Classification
from tests.conftest import small_rows

COLUMNS = Columns(split="split", text_pair="claim")


def table(path: Path, **others: Any) -> TextFiles:
    """One text for all, so that the second ones alone tell the rows apart."""
    rows = [{**row, "claim": row["text"], "text": "said of the trip", **others} for row in small_rows(("a",))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextFiles((str(path),), COLUMNS)


def test_a_second_text_is_read_and_a_repetition_is_of_both(tmp_path: Path) -> None:
    source = table(tmp_path / "t.jsonl")
    assert source.problems() == []
    data = source.load(0)
    train = data.clients[0].train
    assert isinstance(train, Pairs)
    assert set(train.texts) == {"said of the trip"}
    assert len(set(train.seconds)) == len(train) == 16
    assert not any("text that the same client has before" in line for line in describe(data))
    drawn = replace(source, columns=replace(COLUMNS, split="none")).load(0)
    assert len(drawn.clients[0].test) == 5, "the same first text would have kept all rows together"
    again = table(tmp_path / "again.jsonl", claim="the same").load(0)
    assert any(line.startswith("23 examples with a text that the same") for line in describe(again))


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 1 has an empty 'claim', the first of 24 such cells"):
        table(tmp_path / "t.jsonl", claim=" ").load(0)
    with pytest.raises(UserError, match="no column 'rival'; it has text, label, client, split, claim"):
        replace(table(tmp_path / "t.jsonl"), columns=Columns(text_pair="rival", split="split")).load(0)
    for columns, line in (
        (Columns(prompt="p", answer="a", text_pair="b"), "text_pair: goes with text and label"),
        (Columns(text_pair="text"), "text_pair: name a column of its own"),
    ):
        assert columns.problems() == [f"data.columns.{line}"]
    with pytest.raises(ValueError, match="1 texts but 2 second ones"):
        Pairs(("a",), (0,), ("b", "c"))


def test_a_digest_knows_the_second_text_and_that_of_single_texts_is_what_it_was() -> None:
    single, nothing = Split(("a",), (0,)), Split((), ())
    one, two = (
        ClientData("c", Pairs(("a",), (0,), (second,)), nothing, nothing) for second in ("b", "another")
    )
    client = ClientData("c", single, nothing, nothing)
    assert len({digest_of(each, ("x", "y")) for each in (one, two, client)}) == 3
    assert digest_of(client, ("x", "y")) == "8e65b18206340906708091bc14fab667"


def test_pairs_as_the_tokenizer_encodes_them(small_model: Path) -> None:
    long = " ".join(["good"] * 9)
    encode = Classification().encoder(ModelConfig(path=str(small_model), max_length=8))
    examples = encode(Pairs(("bad seat", long), (0, 1), ("good crew", "bad seat")))
    inputs = examples.collate([0, 1]).inputs
    assert inputs["token_type_ids"].tolist() == [[0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 1]]
    assert "token_type_ids" not in encode(Split(("bad seat",), (0,))).collate([0]).inputs
    assert len(encode(Pairs((), (), ()))) == 0


def test_a_model_that_could_not_tell_them_apart(small_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2Model

    AutoTokenizer.from_pretrained(small_model).save_pretrained(tmp_path)
    GPT2Model(GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=1)).save_pretrained(tmp_path)
    encode = Classification().encoder(ModelConfig(path=str(tmp_path)))
    assert len(encode(Split(("bad seat",), (0,)))) == 1
    with pytest.raises(UserError, match="puts nothing between two texts, and the model knows no types"):
        encode(Pairs(("bad seat",), (0,), ("good crew",)))
