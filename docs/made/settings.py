"""Every setting with its type, default and meaning, from the dataclasses of a run."""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from fedpl.config import Config
from fedpl.method import Method
from fedpl.records.schema import meanings
from fedpl.settings import class_path, plain, subclasses

_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Method: "a name with objective and aggregator",
}


def tables(*keys: str) -> str:
    """The settings under these keys of a configuration; `run`: those that stand alone."""
    hints = get_type_hints(Config)
    found = []
    for key in keys:
        if key == "run":
            alone = [part for part in fields(Config) if not _has_keys(hints[part.name])]
            found.append(_table(Config, "", alone))
        elif inspect.isabstract(hints[key]):
            found += _choice(key, hints[key], 2)
        else:
            found += _section(f"## `{key}`", key, hints[key], 2)
    return "\n\n".join(found)


def _has_keys(kind: Any) -> bool:
    return isinstance(kind, type) and (inspect.isabstract(kind) or is_dataclass(kind))


def _section(title: str, key: str, kind: Any, depth: int) -> Iterator[str]:
    """A dataclass: what it is, a table of its settings, then those below it."""
    yield title
    yield _sentences(kind)
    hints = get_type_hints(kind)
    alone = [part for part in fields(kind) if not _has_keys(hints[part.name])]
    if alone:
        yield _table(kind, f"{key}.", alone)
    yield from _inside(key, hints, alone, depth)
    for part in fields(kind):
        below, name = hints[part.name], f"{key}.{part.name}"
        if inspect.isabstract(below):
            yield from _choice(name, below, depth + 1)
        elif _has_keys(below):
            yield from _section(f"{'#' * (depth + 1)} `{name}`", name, below, depth + 1)


def _choice(key: str, kind: Any, depth: int) -> Iterator[str]:
    """A setting whose value is one of several classes, and the settings of each."""
    known = (one for one in subclasses(kind) if one.__module__.startswith("fedpl."))
    named = (one for one in known if not inspect.isabstract(one) and not one.__name__.startswith("_"))
    members = sorted(named, key=lambda one: one.__name__)
    yield f"{'#' * depth} `{key}`"
    names = ", ".join(f"`{class_path(one)}`" for one in members)
    yield f"{_sentences(kind)} One of {names}; the name alone will do."
    shared: dict[str, list[type]] = {}  # groups of settings below members, and whose they are
    for one in members:
        hints = get_type_hints(one)
        own = list(fields(one)) if is_dataclass(one) else []
        # A rule inside a rule (Trimmed) takes any member again: its settings are told but once.
        below = [part.name for part in own if _has_keys(hints[part.name]) and hints[part.name] is not kind]
        for name in below:
            shared.setdefault(name, []).append(one)
        yield f"{'#' * (depth + 1)} `{key}: {one.__name__}`"
        yield _sentences(one)
        rows = [part for part in own if part.name not in below]
        if rows:
            yield _table(one, f"{key}.", rows)
        yield from _inside(key, hints, rows, depth + 1)
    for name, owners in shared.items():
        found = get_type_hints(owners[0])[name]
        title = f"{'#' * (depth + 1)} `{key}.{name}`"
        told = _choice(f"{key}.{name}", found, depth + 1) if inspect.isabstract(found) else None
        sections = told or _section(title, f"{key}.{name}", found, depth + 1)
        yield next(sections)
        yield f"Of {', '.join(f'`{one.__name__}`' for one in owners)}."
        yield from sections


def _inside(key: str, hints: dict[str, Any], parts: "list[Field[Any]]", depth: int) -> Iterator[str]:
    """Groups of settings that may be absent (`task.decoding`), or are there for each name."""
    for part in parts:
        for one in get_args(hints[part.name]):
            if is_dataclass(one) and isinstance(one, type) and one is not Method:
                below = f"{key}.{part.name}" + ".NAME" * (get_origin(hints[part.name]) is dict)
                yield from _section(f"{'#' * (depth + 1)} `{below}`", below, one, depth + 1)


def _sentences(kind: type) -> str:
    """The docstring before its sections, on one line a paragraph."""
    text = (inspect.getdoc(kind) or "").split("\nAttributes:")[0].strip()
    text = text.replace("``", "`").replace("<", "&lt;")
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(paragraphs)


def _table(kind: type, prefix: str, parts: "list[Field[Any]]") -> str:
    hints, told = get_type_hints(kind), _meanings(kind)
    lines = ["| setting | value | default | meaning |", "|---|---|---|---|"]
    for part in parts:
        cells = (
            f"`{prefix}{part.name}`",
            _value(hints[part.name]),
            _default(part, hints[part.name]),
            told.get(part.name, "").replace("``", "`"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _meanings(kind: type) -> dict[str, str]:
    """Of a class's own attributes and of those it inherits."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        found |= meanings(one)
    return found


def _value(kind: Any) -> str:
    arguments, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType):
        return " or ".join(_value(one) for one in arguments)
    if origin is Literal:
        return ", ".join(f"`{one}`" for one in arguments)
    if origin is tuple:
        return f"list of: {_value(arguments[0])}"
    if origin is dict:
        return f"by name: {_value(arguments[1])}"
    if kind is NoneType:
        return "null"
    if is_dataclass(kind) and kind is not Method:
        return ", ".join(f"`{part.name}`" for part in fields(kind))
    if inspect.isabstract(kind):
        return f"a {kind.__name__}"
    return _WORDS[kind]


def _default(part: "Field[Any]", kind: Any) -> str:
    if part.default is not MISSING:
        value = part.default
    elif part.default_factory is not MISSING:
        value = part.default_factory()
    else:
        return "must be given"
    if is_dataclass(value):
        return f"`{type(value).__name__}`"
    text = yaml.safe_dump(plain(value, kind), default_flow_style=True, width=1000, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"
