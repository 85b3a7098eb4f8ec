"""JSON as people write it: an object a line, an array of objects, or objects one after another."""

import json
from collections.abc import Iterable, Iterator
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


def objects_of(file: TextIOBase, path: str) -> tuple[str, Iterator[tuple[int, dict[str, Any]]]]:
    """What is counted, lines or rows, and each object with its place, read when it is asked for.

    Args:
        file: At its beginning.
        path: Of the file, for messages.

    Raises:
        UserError: If it holds anything else, with its place.
    """
    first = next((char for char in iter(lambda: file.read(1), "") if not char.isspace()), "")
    file.seek(0)
    if first == "[":
        return "row", _checked(enumerate(_parsed(file.read(), path), start=1), path, "row")
    return "line", _checked(_lines(file, path), path, "line")


def _checked(values: Iterable[tuple[int, Any]], path: str, unit: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same, once each is known to be an object that can be meant."""
    place = 0
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
        yield place, value
    if not place:
        raise UserError(f"{path}: is empty, {_EXPECTED}")


def _lines(file: TextIOBase, path: str) -> Iterator[tuple[int, Any]]:
    done = 0
    for place, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = _parsed(line.strip(), path, place)
        except UserError:
            file.seek(0)
            values = _one_after_another(file.read())
            if not values:
                raise
            yield from values[done:]  # those before it stand in lines of their own
            return
        yield place, value
        done += 1


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
