"""What server and sites of other organisations write to each other: bytes that hold records, never code.

A JSON tree and the arrays it names, as safetensors. Nothing is unpickled; of classes only the records below
are made, and objectives as a configuration names them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from fedpl.errors import UserError
from fedpl.executors.crew import Done, Order, Raised
from fedpl.files import TYPES
from fedpl.objectives import Objective
from fedpl.records.layout import AdapterLayout, Entry
from fedpl.records.messages import (
    Begin,
    Census,
    Choose,
    Company,
    Deliver,
    Failure,
    Frozen,
    Halves,
    Member,
    Notice,
    Report,
    Seconds,
    Work,
)
from fedpl.records.scores import Metric
from fedpl.settings import build, importing_nothing, plain

_MARK = b"fedpl letter 1\n"
_TYPES = {name: np.dtype(own) for own, name in TYPES.items()} | {"BF16": np.dtype(ml_dtypes.bfloat16)}


class Letter(NamedTuple):
    """An order to a site, with all that has to hold when it is carried out.

    Attributes:
        run: Which run of the server.
        method: Which method of it; empty: whichever.
        frozen: Digest of the change of the frozen weights.
        notices: What the site has to be told first.
        order: What to do.
    """

    run: str
    method: str
    frozen: str
    notices: tuple[Notice, ...]
    order: Order


class Untold(NamedTuple):
    """The site was started anew, or serves another run: it does not hold what the letter asks for."""

    site: str


class Joining(NamedTuple):
    """What a site says of itself, and nothing of its data.

    Attributes:
        site: Its name.
        census: Its clients; no numbers of θ₀, and digests of data that only the site can make.
        start: Digest of θ₀.
        base: Digest of the frozen model.
        settings: Those by which its clients train and are scored, as YAML.
        shifts: Whether its frozen weights can be changed.
    """

    site: str
    census: Census
    start: str
    base: str
    settings: str
    shifts: bool


_RECORDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Letter, Order, Untold, Joining, Done, Raised),
        *(Work, Halves, Report, Failure, Seconds, Company, Frozen, Begin, Deliver, Choose),
        *(Census, Member, Metric, AdapterLayout, Entry),
    )
}


def encode(value: Any) -> bytes:
    """A message as bytes; an array that is in it several times is there once."""
    arrays: dict[int, np.ndarray] = {}
    tree = json.dumps(_plain(value, arrays)).encode()
    own = {str(k): np.require(one, requirements="C") for k, one in enumerate(arrays.values())}
    return b"".join((_MARK, len(tree).to_bytes(8, "little"), tree, save(own)))


def decode(content: bytes) -> Any:
    """The message that `encode` wrote: sequences are tuples.

    Raises:
        UserError: If it is no message of this version.
    """
    if not content.startswith(_MARK):
        raise UserError("a message is not one of this version of fedpl; give server and sites the same")
    begin = len(_MARK) + 8
    end = begin + int.from_bytes(content[len(_MARK) : begin], "little")
    try:
        tree = json.loads(content[begin:end])
        arrays = {name: _array(**one) for name, one in deserialize(content[end:])}
        return _value(tree, arrays)
    except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"a message cannot be read: {type(error).__name__}: {error}") from error


def _array(dtype: str, shape: Sequence[int], data: bytearray) -> np.ndarray:
    return np.frombuffer(data, _TYPES[dtype]).reshape(shape)


def _plain(value: Any, arrays: dict[int, np.ndarray]) -> Any:
    match value:
        case None | bool() | int() | str() | float():
            return value
        case np.ndarray():
            places = {key: place for place, key in enumerate(arrays)}
            arrays.setdefault(id(value), value)
            return {"tensor": places.get(id(value), len(places))}
        case Objective():
            return {"objective": plain(value, Objective)}
        case BaseException():
            return {"error": str(value), "ours": isinstance(value, UserError)}
        case Mapping():
            return {"mapping": {str(key): _plain(one, arrays) for key, one in value.items()}}
    kind = type(value)
    if _RECORDS.get(kind.__name__) is kind:
        return {"record": kind.__name__, "values": [_plain(one, arrays) for one in _values(value)]}
    if isinstance(value, tuple | list):
        return [_plain(one, arrays) for one in value]
    raise TypeError(f"a message cannot hold {kind.__name__}")


def _values(record: Any) -> list[Any]:
    if isinstance(record, tuple):
        return list(record)
    return [getattr(record, part.name) for part in dataclasses.fields(record)]


def _value(tree: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(tree, list):
        return tuple(_value(one, arrays) for one in tree)
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return arrays[str(tree["tensor"])]
    if "objective" in tree:
        with importing_nothing(Path("a message")):
            return build(Objective, tree["objective"], "objective")  # type: ignore[type-abstract]
    if "error" in tree:
        return (UserError if tree["ours"] else RuntimeError)(str(tree["error"]))
    if "mapping" in tree:
        return {key: _value(one, arrays) for key, one in tree["mapping"].items()}
    return _RECORDS[tree["record"]](*(_value(one, arrays) for one in tree["values"]))
