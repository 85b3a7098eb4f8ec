"""``python -m fedpl.records.schema``: the schema of the JSON files as Markdown, from the docstrings."""

import inspect
import re
import sys
from dataclasses import MISSING
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from fedpl.records.card import Card
from fedpl.records.comparison import Comparison
from fedpl.records.newcomer import Newcomer
from fedpl.records.plain import LARGEST, Matrix, Part, is_record, parts
from fedpl.records.results import MethodResult, RunSummary
from fedpl.records.rounds import RoundRecord

FILES = {
    "summary.json": RunSummary,
    "metrics.jsonl, each line": RoundRecord,
    "state/result.json": MethodResult,
    "comparison.json": Comparison,
    "adapters/<client>/fedpl.json": Card,
    "newcomers/<client>/newcomer.json": Newcomer,
}
HEAD = f"""# Files of results

Made by `python -m fedpl.records.schema > docs/schema.md`; a test holds it to the code. `fedpl.records`
reads and writes these files: `RunSummary.read(folder)`, `.to_json()`, `.from_json(value)`.

*scores* is an object with a number for each of `metrics`, in their order:
`{{"accuracy": 0.9, "macro_f1": 0.8}}`. A number that is not finite is null. A matrix has a row and a column
for each client, in the order of `clients`; with more than {LARGEST} clients it lies beside the file as
NumPy's `.npy`, in float32, and the key holds that file's name. `clients` of more than {LARGEST} clients is a
list of two: their names, and one object in which every key holds the list of all their values; an object that
some clients lack names in `@rows` the places of those that have it.
"""
_WORDS: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def page() -> str:
    """The whole page."""
    told: list[type] = []
    sections = [HEAD]
    for file, record in FILES.items():
        sections.append(f"## `{file}`\n\n{_section(record, told)}")
    for record in told:  # grows while it is gone through
        sections.append(f"## {record.__name__}\n\n{_section(record, told)}")
    return "\n".join(sections)


def _section(record: type, told: list[type]) -> str:
    """What a record is, and a row for each of its keys; records that it names are entered into `told`."""
    summary = (inspect.getdoc(record) or "").split("\n\n")[0]
    rows = "".join(f"| {' | '.join(row)} |\n" for row in _rows(record, told))
    return f"{summary}\n\n| key | value | meaning |\n|---|---|---|\n{rows}"


def _rows(record: type, told: list[type]) -> list[tuple[str, str, str]]:
    told_of, rows = meanings(record), []
    for part in parts(record):
        if part.form == "aside":
            continue
        if part.form == "inline" and is_record(part.type):
            rows += _rows(part.type, told)
        elif part.form == "inline":
            rows.append(("*name*", _words(get_args(part.type)[1], told), told_of[part.name]))
        else:
            rows.append((f"`{part.name}`", _words(_present(part), told), told_of[part.name] + _absence(part)))
    return rows


def meanings(record: type) -> dict[str, str]:
    """The attributes of a docstring in Google's style."""
    section = (inspect.getdoc(record) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("|", r"\|") for name, text in found}


def _present(part: Part) -> Any:
    """The type of a field whose key is there."""
    if part.form != "optional":
        return part.type
    (inner,) = (one for one in get_args(part.type) if one is not NoneType)
    return inner


def _absence(part: Part) -> str:
    if part.form == "optional":
        return " *Not always there.*"
    return " *Absent in older files.*" if part.name == "metrics" and part.default is not MISSING else ""


def _words(kind: Any, told: list[type]) -> str:
    """A type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Matrix:
        return "matrix"
    if origin in (Union, UnionType):
        return " or ".join("null" if one is NoneType else _words(one, told) for one in arguments)
    if is_record(kind):
        if kind not in told:
            told.append(kind)
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if origin is tuple:
        return f"list of {_words(arguments[0], told)}"
    if origin is not None:
        return "*scores*" if arguments[1] is float else f"by name: {_words(arguments[1], told)}"
    return _WORDS[kind]


if __name__ == "__main__":
    sys.stdout.write(page())
