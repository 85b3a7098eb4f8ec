"""Rows as prompts with answers, or as conversations: what a cell may hold, and what is refused."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpl.data.cells import word
from fedpl.data.columns import Columns
from fedpl.data.moments import Moment
from fedpl.data.pictures import Picture
from fedpl.data.reading import Table
from fedpl.data.records import Dialogues, Message
from fedpl.data.splitting import SPLITS, split_of
from fedpl.data.wording import readable
from fedpl.errors import UserError

_ROLES = ("system", "user", "assistant")


class Example(NamedTuple):
    """A row of a table.

    Attributes:
        text: The text, or what is said before the answer.
        label: Its class; empty where answers are no classes.
        split: What its split is declared to be.
        group: The true group that its row names.
        second: The second text of a pair.
        value: The number to predict.
        picture: The image, if it is one; the text is its name.
        messages: The conversation, if it is one.
        options: Possible answers.
        time: When it was, where rows are split by it.
    """

    text: str
    label: str = ""
    split: str = ""
    messages: tuple[Message, ...] = ()
    options: tuple[str, ...] = ()
    group: str = ""
    second: str = ""
    value: float = 0.0
    picture: Picture | None = None
    time: Moment | None = None

    @property
    def right(self) -> str:
        """What is to be answered, where it is no class; empty for a number."""
        return self.messages[-1].content if self.messages else ""

    @property
    def said(self) -> str:
        """All that it says, both texts of a pair; of an image the digest, which equal ones share."""
        if self.picture is not None:
            return self.picture.digest
        return f"{self.text}\n{self.second}" if self.second else self.text


def example(row: Mapping[str, Any], at: str, columns: Columns) -> Example:
    """A row as an example.

    Args:
        row: Cells by column.
        at: Where it stands.
        columns: Names of the columns.

    Raises:
        UserError: If its cells hold no conversation or no options, or there is nothing to learn.
    """
    split = _split(word(row[columns.declared]), at, columns.declared) if columns.declared else ""
    group = word(row[columns.group]) if columns.group else ""
    if columns.image:
        picture = row[columns.image]
        return Example(picture.name, word(row[columns.label]), split, group=group, picture=picture)
    if not columns.dialogues:
        second = word(row[columns.text_pair]) if columns.text_pair else ""
        text, own = word(row[columns.text]), row[columns.value or columns.label]
        if columns.value:
            return Example(text, "", split, group=group, second=second, value=_number(own, at, columns.value))
        return Example(text, word(own), split, group=group, second=second)
    if columns.messages:
        said = conversation(row[columns.messages], at, columns.messages)
    else:
        said = exchange(word(row[columns.prompt]), word(row[columns.answer]))
    options = options_of(row[columns.options], at, columns.options) if columns.options else ()
    answer = said[-1].content
    if not answer.strip():
        raise UserError(f"{at}: the answer is empty, so there is nothing to learn; leave the row out")
    if options and answer not in options:
        raise UserError(f"{at}: the answer is none of its {len(options)} options; mend the row")
    text = "\n".join(one.content for one in said[:-1])
    return Example(text, split=split, messages=said, options=options, group=group)


def _number(cell: Any, at: str, column: str) -> float:
    try:
        found = math.nan if isinstance(cell, bool) else float(cell)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{at}: {column!r} is '{readable(str(cell), 30)}', expected a number such as -1.5")
    return found


def _split(name: str, at: str, column: str) -> str:
    if (split := split_of(name)) is None:
        raise UserError(f"{at}: {column!r}: split '{readable(name)}' is none of {', '.join(SPLITS)}")
    return split


def exchange(prompt: str, answer: str) -> tuple[Message, ...]:
    """A conversation of a prompt and its answer."""
    return Message("user", prompt), Message("assistant", answer)


def conversation(cell: Any, at: str, column: str) -> tuple[Message, ...]:
    """The messages of a cell.

    Args:
        cell: A list of {role, content}, or it as JSON.
        at: Where it stands.
        column: Its column.

    Raises:
        UserError: If it is none, or users and assistant do not take turns, or it does not end with an answer.
    """
    said = []
    for item in _list(cell, at, column):
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("content"), str)
            or item.get("role") not in _ROLES
        ):
            raise UserError(
                f"{at}: {column!r} has a message that is no object with a role "
                f"({', '.join(_ROLES)}) and content (text)"
            )
        said.append(Message(item["role"], item["content"]))
    roles = [one.role for one in said]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if not turns or len(turns) % 2 or turns != ["user", "assistant"] * (len(turns) // 2):
        raise UserError(
            f"{at}: {column!r} has the roles {', '.join(roles[:8]) or 'of nobody'}; expected system at most "
            f"first, then user and assistant by turns, an assistant last"
        )
    return tuple(said)


def options_of(cell: Any, at: str, column: str) -> tuple[str, ...]:
    """The options of a cell, a list of at least two different ones, or it as JSON.

    Raises:
        UserError: If they are none.
    """
    found = tuple(word(item) for item in _list(cell, at, column) if not isinstance(item, list | dict))
    if len(set(found)) < 2 or len(set(found)) < len(_list(cell, at, column)):
        raise UserError(f"{at}: {column!r} needs at least two options, each a text and each once")
    return found


def check_rows(tables: Sequence[Table]) -> None:
    """Refuse tables without any row."""
    if not any(table.rows for table in tables):
        raise UserError(f"the table has no rows: {', '.join(table.path for table in tables)}")


def dialogues(rows: Sequence[Example], chosen: Sequence[int], client: str) -> Dialogues:
    """Some of a client's rows as a split.

    Args:
        rows: All of its rows.
        chosen: Which.
        client: Its id.
    """
    own = [rows[i] for i in chosen]
    options = tuple(row.options for row in own)
    return Dialogues(
        tuple(row.text for row in own),
        tuple(row.options.index(row.messages[-1].content) if row.options else 0 for row in own),
        tuple(row.messages for row in own),
        options if any(options) else (),
        tuple(f"client '{readable(client)}', its row {i + 1}" for i in chosen),
    )


def _list(cell: Any, at: str, column: str) -> list[Any]:
    value = cell
    if isinstance(cell, str):
        try:
            value = json.loads(cell)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list):
        raise UserError(f"{at}: {column!r} holds no list, nor one written as JSON")
    return value
