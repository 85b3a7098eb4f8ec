"""Records as the plain values that JSON holds, and back: both follow the types of the fields."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
from jaxtyping import Float

from fedpl.errors import UserError
from fedpl.records.columns import columns, rows

Matrix: TypeAlias = Float[np.ndarray, "clients clients"]
LARGEST = 64  # a larger matrix lies in a file of its own: 2,000 clients would be 206 MB of JSON


def inline() -> Any:
    """A field whose own keys stand in the object, instead of one key for all."""
    return field(metadata={"form": "inline"})


def optional() -> Any:
    """A field whose key is absent where it is None."""
    return field(default=None, metadata={"form": "optional"})


def aside() -> Any:
    """A field that is not written."""
    return field(default=(), metadata={"form": "aside"})


class Part(NamedTuple):
    """A field of a record: its name, type and default, and where it stands in JSON."""

    name: str
    type: Any
    default: Any
    form: str = ""


def parts(record: Any) -> tuple[Part, ...]:
    """The fields of a frozen dataclass or a named tuple."""
    return _parts(record)


@cache
def _parts(record: Any) -> tuple[Part, ...]:
    types = get_type_hints(record)
    if is_dataclass(record):
        return tuple(
            Part(f.name, types[f.name], f.default, f.metadata.get("form", "")) for f in fields(record)
        )
    defaults = record._field_defaults
    return tuple(Part(name, types[name], defaults.get(name, MISSING)) for name in types)


def is_record(kind: Any) -> bool:
    """Whether a type has fields of its own."""
    return is_dataclass(kind) or hasattr(kind, "_field_defaults")


def encode(value: Any, name: str = "") -> Any:
    """Plain values: NaN and infinity, which JSON lacks, are null, large matrices the names of their files.

    Records by name, where there are many, are the list of names and one list for each of their numbers.

    Args:
        value: Anything made of records, mappings, sequences, numbers and text.
        name: Of the field, for the file's name.
    """
    if isinstance(value, np.ndarray):
        return f"{name}.npy" if is_large(value) else encode(value.tolist())
    if is_record(type(value)):
        found: dict[str, Any] = {}
        for part in parts(type(value)):
            own = getattr(value, part.name)
            if part.form == "aside" or (part.form == "optional" and own is None):
                continue
            plain = encode(own, part.name)
            found |= plain if part.form == "inline" else {part.name: plain}
        return found
    if isinstance(value, Mapping):
        found = {key: encode(item) for key, item in value.items()}
        many = len(found) > LARGEST and is_record(type(next(iter(value.values()))))
        return [list(found), columns(list(found.values()))] if many else found
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_large(matrix: Matrix) -> bool:
    """Whether a matrix lies beside the JSON."""
    return max(matrix.shape) > LARGEST


def decode(kind: Any, value: Any, at: tuple[str, ...]) -> Any:
    """The value of a type from what `encode` made of it.

    Args:
        kind: The type.
        value: Plain values.
        at: The file, then the keys on the way here.

    Raises:
        UserError: Naming file and key, if it is not of this form.
    """
    arguments = get_args(kind)
    if kind is Matrix:
        return _matrix(value, at)
    if get_origin(kind) in (Union, UnionType):
        (inner,) = (one for one in arguments if one is not NoneType)
        return None if value is None else decode(inner, value, at)
    if is_record(kind):
        found, left = _take(kind, _expected(dict, value, at), at)
        if left:
            raise _wrong(at, f"expected no key {next(iter(left))!r} here")
        return found
    if get_origin(kind) is tuple:
        items = _expected(list, value, at)
        return tuple(decode(arguments[0], item, (*at, str(i))) for i, item in enumerate(items))
    if get_origin(kind) is not None:
        items = _named(value, at) if is_record(arguments[1]) else _expected(dict, value, at)
        return {key: decode(arguments[1], item, (*at, key)) for key, item in items.items()}
    if kind is float:
        return math.nan if value is None else _expected(float, value, at)
    return _expected(kind, value, at)


def _take(kind: Any, value: dict[str, Any], at: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """A record from the keys that are its own, and the other keys; a mapping that stands inline takes all."""
    left, found = dict(value), {}
    own = parts(kind)
    for part in (part for part in own if part.form not in ("inline", "aside")):
        if part.name not in left:
            if part.default is MISSING:
                raise _wrong((*at, part.name), "is missing")
            continue
        plain, hint = left.pop(part.name), part.type
        if part.form == "optional" and plain is None and float in get_args(hint):
            hint = float  # it is there: not a number, not nothing
        found[part.name] = decode(hint, plain, (*at, part.name))
    for part in (part for part in own if part.form == "inline"):
        if is_record(part.type):
            found[part.name], left = _take(part.type, left, at)
        else:
            found[part.name], left = decode(part.type, left, at), {}
    return kind(**found), left


_WORDS = {dict: "an object", list: "a list", float: "a number", int: "a whole number", str: "text"}


def _expected(kind: type, value: Any, at: tuple[str, ...]) -> Any:
    right: Any = (int, float) if kind is float else kind
    if not isinstance(value, right) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(at, f"expected {_WORDS.get(kind, 'true or false')}, got {str(value)[:40]!r}")
    return value


def _matrix(value: Any, at: tuple[str, ...]) -> Matrix:
    """A matrix from its rows or from the file that lies beside."""
    try:
        if isinstance(value, str):
            if Path(value).name != value:
                raise ValueError(f"{value} does not lie in this folder")
            matrix = np.load(Path(at[0]).parent / value, allow_pickle=False)
        else:
            matrix = np.array(_expected(list, value, at), dtype=np.float64)  # null becomes NaN
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise _wrong(at, f"expected a matrix or the file of one: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise _wrong(at, f"expected a row and a column for each client, got the shape {matrix.shape}")
    return matrix


def _named(value: Any, at: tuple[str, ...]) -> dict[str, Any]:
    """Plain values by name, from an object or from names and columns."""
    if not isinstance(value, list):
        return _expected(dict, value, at)
    try:
        names, table = value
        return dict(zip(names, rows(table, len(names)), strict=True))
    except (ValueError, TypeError, IndexError) as error:
        raise _wrong(at, f"expected names and columns of as many values: {error}") from error


def _wrong(at: tuple[str, ...], what: str) -> UserError:
    return UserError(": ".join(part for part in (at[0], ".".join(at[1:]), what) if part))


def same(one: Any, other: Any) -> bool:
    """Whether two records hold the same, NaN being like NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    if is_record(type(one)) and type(one) is type(other):
        return all(same(getattr(one, part.name), getattr(other, part.name)) for part in parts(type(one)))
    return bool(one == other)


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, float | int]:
    """Nested dictionaries as one with ``/`` in its keys; per-client entries and nulls are left out."""
    return dict(_numbers(value, prefix))


def _numbers(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float | int]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            if key != "clients":
                yield from _numbers(item, f"{prefix}{key}/")
        elif isinstance(item, int | float):
            yield prefix + key, item
