"""What a command line that does not parse may have meant."""

import re
from collections.abc import Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any

from jsonargparse import ArgumentParser

from fedpl.data import Source
from fedpl.objectives import Objective
from fedpl.server import Combine, Receive, Similarity, Weighting
from fedpl.settings import class_path, subclasses
from fedpl.tasks import Task

# How jsonargparse words a key, an option of a class or a class that does not exist.
_UNKNOWN = (
    r"Group '([\w.]+)' does not accept option '([\w.]+)'",
    r"unrecognized arguments: --([\w.]+)",
    r"Option '([\w.]+)' is not accepted",
    r"Key '([\w.]+)' is not expected",
    r"No action for key '([\w.]+)'",
    r"dot import path string: ([\w.]+)",
    r"Problem with given class_path '([\w.]+)'",
)


def whole(message: str, argv: Sequence[str]) -> str:
    """A message with the key as it was given, of which jsonargparse says the last part alone."""
    if (found := re.match(r"Option '(\w+)' is not accepted", message)) is None:
        return message
    given = (word.removeprefix("--").partition("=")[0] for word in argv if word.startswith("--"))
    keys = [key for key in given if key.endswith(f".{found[1]}")]
    return message.replace(found[1], keys[0], 1) if len(keys) == 1 else message


def suggestion(message: str, parser: ArgumentParser) -> str:
    """Where the unknown key of a message belongs, or the valid one nearest to it, whole; else nothing."""
    match = next((found for pattern in _UNKNOWN if (found := re.search(pattern, message))), None)
    if match is None:
        return ""
    wrong = ".".join(match.groups())
    last = wrong.rpartition(".")[2]
    known = _known(parser)
    owners = [(key, cls) for key, cls in _plugins() if last in cls.__dataclass_fields__]
    placed = [one for one in owners if wrong.startswith(f"{one[0]}.")]
    same = [key for key in known if _last(key) == _OTHER_WORDS.get(last, last) and key != wrong]
    if placed or (owners and not set(same) & set(_keys(parser))):
        key, cls = (placed or owners)[0]
        return f"; {key}.{last} is an option of {class_path(cls)}: choose that by --{key} {class_path(cls)}"
    # A key is more often misspelt in its last part than put in the wrong place.
    near = same or get_close_matches(wrong, known, n=1, cutoff=0.75)
    near = near or [
        key
        for part in get_close_matches(last, map(_last, known), n=1, cutoff=0.8)
        for key in known
        if _last(key) == part
    ]
    return f"; did you mean '{near[0]}'?" if near else ""


# What others call the same.
_OTHER_WORDS = {"learning_rate": "lr", "num_rounds": "rounds", "num_epochs": "epochs", "rank": "r"}


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _plugins() -> list[tuple[str, Any]]:
    """Every class that can be chosen, with the key where it is."""
    bases: dict[str, type] = {
        "data": Source,
        "task": Task,
        "client.objective": Objective,
        "aggregator.similarity": Similarity,
        "aggregator.weighting": Weighting,
        "aggregator.combine": Combine,
        "aggregator.receive": Receive,
    }
    return [(key, cls) for key, base in bases.items() for cls in subclasses(base) if is_dataclass(cls)]


def _keys(parser: ArgumentParser) -> list[str]:
    """Dotted keys that need no other class than the defaults."""
    return [action.dest for action in parser._actions if action.dest not in ("help", "print_config")]


def _known(parser: ArgumentParser) -> list[str]:
    """Dotted keys, those of every pluggable class's settings, and the names of these classes."""
    options = [f"{key}.{name}" for key, cls in _plugins() for name in cls.__dataclass_fields__]
    return [*_keys(parser), *options, *(class_path(cls) for _, cls in _plugins())]
