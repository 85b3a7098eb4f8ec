"""JSON as people write it: an object a line, an array of objects, or objects one after another."""

import json
from io import TextIOBase
from typing import Any

from fedpl.errors import UserError

_EXPECTED = "expected one JSON object a line, or one array of objects"


class _Twice(str):
    """In place of an object that names a key more than once: the key."""


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    return _Twice(next(name for name in found if names.count(name) > 1))


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def objects_of(file: TextIOBase, path: str) -> tuple[str, list[tuple[int, dict[str, Any]]]]:
    """What is counted, lines or rows, and each object with its place.

    Args:
        file: At its beginning.
        path: Of the file, for messages.

    Raises:
        UserError: If it holds anything else, with its place.
    """
    first = next((char for char in iter(lambda: file.read(1), "") if not char.isspace()), "")
    file.seek(0)
    if first == "[":
        unit, values = "row", list(enumerate(_parsed(file.read(), path), start=1))
    else:
        unit, values = "line", _lines(file, path)
    for place, value in values:
        at = f"{path}: {unit} {place}"
        if isinstance(value, _Twice):
            raise UserError(f"{at} names the key '{value}' twice; keep one of them")
        if not isinstance(value, dict):
            raise UserError(f"{at} holds a {type(value).__name__}, expected an object by column")
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:  # JSON can escape what is no text
            raise UserError(
                f"{at} holds half of a character, {error.object[error.start]!r}; mend the text"
            ) from error
    if not values:
        raise UserError(f"{path}: is empty, {_EXPECTED}")
    return unit, values


def _lines(file: TextIOBase, path: str) -> list[tuple[int, Any]]:
    try:
        return [
            (place, _parsed(line.strip(), path, place))
            for place, line in enumerate(file, start=1)
            if line.strip()
        ]
    except UserError:
        file.seek(0)
        if values := _one_after_another(file.read()):
            return values
        raise


def _one_after_another(text: str) -> list[tuple[int, Any]]:
    """Objects of several lines each, or several in a line; nothing, if there is anything else."""
    values: list[tuple[int, Any]] = []
    place, seen, line, end = 0, 0, 1, len(text.rstrip())
    while place < end:
        place = next(i for i in range(place, end) if not text[i].isspace())
        line, seen = line + text.count("\n", seen, place), place
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        values.append((line, value))
    return values


def _parsed(text: str, path: str, line: int = 1) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: line {line + error.lineno - 1}: {error.msg} (column {error.colno}); {_EXPECTED}"
        ) from error
    except RecursionError as error:
        raise UserError(f"{path}: line {line} is nested too deep; expected objects by column") from error
    except ValueError as error:
        raise UserError(f"{path}: line {line}: {str(error).partition(';')[0]}; write it as text") from error
