"""Tables of prompts with answers, and of conversations."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedpl.data import Columns, Dialogues, FederatedData, Message, Splitting, TextFiles, describe
from fedpl.errors import UserError

PAIRS = Columns(prompt="prompt", answer="answer")
TALKS = Columns(messages="messages", options="options")


def rows(number: int = 10, **more: Any) -> list[dict[str, Any]]:
    """Rows of two clients, sorted by answer as some files are."""
    words = ("red", "green", "blue", "white", "black")
    return [
        {
            "prompt": f"{words[i % 5]} or {words[(i * 3 + 1) % 5]}? question {i}",
            "answer": words[i * 5 // number],
            "client": client,
            **more,
        }
        for client in ("a", "b")
        for i in range(number)
    ]


def talk(*contents: str, system: bool = False) -> list[dict[str, str]]:
    said = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return [{"role": "system", "content": "be kind"}, *said] if system else said


def read(path: Path, lines: list[dict[str, Any]], columns: Columns = PAIRS, **settings: Any) -> FederatedData:
    file = path / "rows.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = TextFiles((str(file),), columns, Splitting(near_duplicates=0.0, **settings))
    assert source.problems() == []
    return source.load(0)


def refusal(path: Path, lines: list[dict[str, Any]], columns: Columns = PAIRS) -> str:
    with pytest.raises(UserError) as refused:
        read(path, lines, columns)
    return str(refused.value)


def test_prompts_and_answers(tmp_path: Path) -> None:
    data = read(tmp_path, rows())
    client = data.clients[0]
    assert data.classes == ()
    assert isinstance(client.train, Dialogues)
    assert (len(client.train), len(client.validation), len(client.test)) == (6, 2, 2)
    first = client.train.messages[0]
    assert [one.role for one in first] == ["user", "assistant"]
    assert client.train.texts[0] == first[0].content
    number = int(client.train.places[0].removeprefix("client 'a', its row "))
    assert rows()[number - 1]["prompt"] == client.train.texts[0]


def test_conversations_with_options(tmp_path: Path) -> None:
    lines = [
        {"messages": talk("hi", "yo", "and?", f"no {i}", system=i == 0), "options": [f"no {i}", "yes"]}
        | {"client": "a"}
        for i in range(8)
    ]
    data = read(tmp_path, lines, TALKS)
    splits = [getattr(data.clients[0], name) for name in ("train", "validation", "test")]
    found = {said: options for own in splits for said, options in zip(own.messages, own.options, strict=True)}
    assert len(found) == 8
    system = next(said for said in found if said[0] == Message("system", "be kind"))
    assert system[-1] == Message("assistant", "no 0")
    assert found[system] == ("no 0", "yes")
    assert {label for own in splits for label in own.labels} == {0}
    (line, *_) = describe(data)
    assert line == (
        "data: 8 examples (train 4, validation 2, test 2); 8 different answers of 2 to 2 words (median 2); "
        "2 to 2 options; up to 2 answers in a conversation"
    )


def test_lists_in_csv_are_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    cell = json.dumps(["x", "y"]).replace('"', '""')
    path.write_text("q,a,client,options\n" + "".join(f'q{i},x,c,"{cell}"\n' for i in range(6)))
    data = TextFiles((str(path),), Columns(prompt="q", answer="a", options="options")).load(0)
    train = data.clients[0].train
    assert isinstance(train, Dialogues)
    assert set(train.options) == {("x", "y")}


def test_a_cap_is_drawn_and_not_the_first_rows(tmp_path: Path) -> None:
    """Files sorted by answer would else teach constants."""
    lines = [row | {"split": "train"} for row in rows(50)]
    lines += [row | {"split": split} for row in rows(5) for split in ("validation", "test")]
    columns = replace(PAIRS, split="split")
    data = read(tmp_path, lines, columns, max_train=10)
    for client in data.clients:
        assert isinstance(client.train, Dialogues)
        assert len(client.train) == 10
        assert len(set(client.train.answers)) >= 3
    assert data.clients[0].train.texts != data.clients[1].train.texts
    assert data == read(tmp_path, lines, columns, max_train=10)


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        ([*rows(), {"prompt": "p", "answer": "", "client": "a"}], PAIRS, "line 21 has an empty 'answer'"),
        ([*rows(), {"prompt": "p", "answer": " ", "client": "a"}], PAIRS, "line 21 has an empty 'answer'"),
        ([*rows(), {"prompt": ["p"], "answer": "x", "client": "a"}], PAIRS, "line 21: 'prompt' holds a list"),
        ([{"messages": "hello", "options": [], "client": "a"}], TALKS, "line 1: 'messages' holds no list"),
        ([{"messages": talk("a"), "options": [], "client": "a"}], TALKS, "has the roles user; expected"),
        ([{"messages": talk("a", "b", "c"), "options": [], "client": "a"}], TALKS, "an assistant last"),
        ([{"messages": [{"role": "tool"}], "options": [], "client": "a"}], TALKS, "no object with a role"),
        ([{"messages": talk("a", "b"), "options": ["b"], "client": "a"}], TALKS, "at least two options"),
        (
            [{"messages": talk("a", "b"), "options": ["c", "d"], "client": "a"}],
            TALKS,
            "is none of its 2",
        ),
    ],
)
def test_rows_that_teach_nothing_are_named(
    lines: list[dict[str, Any]], columns: Columns, message: str, tmp_path: Path
) -> None:
    assert message in refusal(tmp_path, lines, columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns(prompt="p"), "goes with answer"),
        (Columns(prompt="p", answer="a", messages="m"), "one or the other"),
        (Columns(options="o"), "options: goes with prompt"),
        (Columns(text="t", prompt="p", answer="a"), "text and label are not read"),
    ],
)
def test_columns_that_do_not_go_together(columns: Columns, message: str, tmp_path: Path) -> None:
    assert message in " ".join(TextFiles((str(tmp_path),), columns).problems())


def test_what_a_run_says_of_answers(tmp_path: Path) -> None:
    constant = [row | {"answer": "red"} if row["client"] == "a" else row for row in rows()]
    lines = list(describe(read(tmp_path, constant)))
    assert lines[0].startswith(
        "data: 20 examples (train 12, validation 4, test 4); 5 different answers of 1 to 1"
    )
    assert "warning: 1 client with one answer alone in training: 'a'" in lines
