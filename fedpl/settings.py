"""Settings as the plain values of YAML, and back: frozen dataclasses, and choices named by class_path.

A field whose type is abstract is a choice: ``{class_path: fedpl.server.FedBip, init_args: {floor: 0.2}}``, or
the class's name alone.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fedpl.errors import UserError

T = TypeVar("T")
Tree = dict[str, Any]

_found_in: ContextVar[Path | None] = ContextVar("a file whose classes are not imported", default=None)


@contextmanager
def importing_nothing(source: Path) -> Iterator[None]:
    """Within it no module is imported because settings name a class of it, but fedpl's own.

    Settings that lie in a run directory may be another's: classes of modules that this process has imported
    already are taken, others refused.

    Args:
        source: Where the settings are from, for the message.
    """
    token = _found_in.set(source)
    try:
        yield
    finally:
        _found_in.reset(token)


def plain(value: Any, kind: Any = None) -> Any:
    """What YAML can hold of settings, complete.

    Args:
        value: Settings, or a part of them.
        kind: The type of the field it stands in; None: its own.
    """
    if is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        own = {part.name: plain(getattr(value, part.name), hints[part.name]) for part in fields(value)}
        return {"class_path": class_path(type(value)), "init_args": own} if _is_choice(kind) else own
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def build(kind: type[T], tree: Any, at: str = "") -> T:
    """Settings from plain values; what is left out has its default.

    Args:
        kind: Their type.
        tree: As from `plain`.
        at: Dotted key of the part, for messages.

    Raises:
        UserError: Naming the key, what was expected and what came.
    """
    found: T = _build(kind, tree, at)
    return found


def merged(tree: Tree, layer: Mapping[str, Any]) -> Tree:
    """A tree with a layer on top; a choice of another class replaces the one below whole."""
    found = dict(tree)
    for key, value in layer.items():
        below = found.get(key)
        found[key] = merged(found[key], value) if _continues(below, value) else value
    return found


def _continues(below: Any, value: Any) -> bool:
    """Whether keys go on top of keys, of the same class where it is a choice."""
    if not isinstance(below, dict) or not isinstance(value, Mapping):
        return False
    return value.get("class_path", below.get("class_path")) == below.get("class_path")


def changed(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """A tree with other values at some dotted keys, written as on the command line.

    Args:
        tree: As from `plain`.
        changes: Values by key: ``client.lr``; ``aggregator.weighting`` takes a class,
            ``aggregator.weighting.floor`` one of its options.

    Raises:
        UserError: If a key leads nowhere.
    """
    for key in sorted(changes, key=lambda key: key.count(".")):  # a class before its options
        tree = _changed(tree, key.split("."), changes[key], key)
    return tree


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; the options of a class are named as on the command line."""
    if not isinstance(tree, Mapping) or not tree:
        yield prefix.rstrip("."), tree
        return
    for key, item in tree.items():
        yield from flat(item, prefix if key == "init_args" else f"{prefix}{key}.")


def class_path(cls: type) -> str:
    """The shortest name by which a class can be imported."""
    package = cls.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), cls.__name__, None) is cls
    return f"{package if exported else cls.__module__}.{cls.__name__}"


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and inspect.isabstract(kind)


def _changed(tree: Any, keys: list[str], value: Any, key: str) -> Any:
    if not isinstance(tree, Mapping):
        raise UserError(f"{key}: there is no such setting")
    head, *rest = keys
    if "class_path" in tree and head not in ("class_path", "init_args"):
        return {**tree, "init_args": _changed(tree.get("init_args") or {}, keys, value, key)}
    if rest == ["class_path"]:
        rest = []
    if rest:
        return {**tree, head: _changed(tree.get(head, {}), rest, value, key)}
    below = tree.get(head)
    if isinstance(below, Mapping) and "class_path" in below and isinstance(value, str):
        same = value in (below["class_path"], below["class_path"].rpartition(".")[2])
        value = below if same else {"class_path": value}
    return {**tree, head: value}


def _build(kind: Any, value: Any, at: str) -> Any:
    arguments, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType):
        return _one_of(kind, arguments, value, at)
    if origin is Literal:
        if not any(value == one and type(value) is type(one) for one in arguments):
            raise _wrong(kind, value, at)
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(kind, value, at)
        return tuple(_build(arguments[0], item, f"{at}.{place}") for place, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise _wrong(kind, value, at)
        return {str(key): _build(arguments[1], item, f"{at}.{key}") for key, item in value.items()}
    if _is_choice(kind):
        return _chosen(kind, value, at)
    if isinstance(kind, type) and is_dataclass(kind):
        return value if isinstance(value, kind) else _filled(kind, value, at)
    right = (int, float) if kind is float else kind
    if kind is Any or (isinstance(value, right) and (not isinstance(value, bool) or kind is bool)):
        return float(value) if kind is float else value
    raise _wrong(kind, value, at)


def _one_of(kind: Any, arguments: tuple[Any, ...], value: Any, at: str) -> Any:
    """The value of the first type of a union that takes it."""
    if value is None and NoneType in arguments:
        return None
    for one in (one for one in arguments if one is not NoneType):
        if is_dataclass(one) and isinstance(value, Mapping):
            return _build(one, value, at)
        try:
            return _build(one, value, at)
        except UserError:
            continue
    raise _wrong(kind, value, at)


def _chosen(kind: type, value: Any, at: str) -> Any:
    """An instance of a class that is named."""
    if isinstance(value, kind):
        return value
    named = {"class_path": value} if isinstance(value, str) else value
    if not isinstance(named, Mapping) or not isinstance(named.get("class_path"), str):
        raise UserError(f"{at}: expected class_path: {' or '.join(_names(kind)[:3])}, ..., got {value!r}")
    extra = sorted(named.keys() - {"class_path", "init_args"})
    if extra:
        raise UserError(f"{at}.{extra[0]}: beside class_path there is only init_args; put it there")
    return _filled(find_class(kind, named["class_path"], at), named.get("init_args") or {}, at)


def find_class(kind: type, path: str, at: str) -> type:
    """The class that a class_path names.

    Args:
        kind: What it has to be.
        path: Dotted path, or the name of a class that is known.
        at: Dotted key, for messages.

    Raises:
        UserError: If there is none of this kind, with the nearest that there is.
    """
    module, _, name = path.rpartition(".")
    found = {cls.__name__: cls for cls in subclasses(kind)}.get(path)
    if module:
        source = _found_in.get()
        if source and module.partition(".")[0] != "fedpl" and module not in sys.modules:
            raise UserError(
                f"{source}: {at} is '{path}', code that is not fedpl's and that a run directory alone does "
                f"not get imported; if you trust it, name it: --import {module} (in Python: import {module})"
            )
        try:
            found = getattr(import_module(module), name, None)
        except ImportError:
            found = None
    if isinstance(found, type) and issubclass(found, kind) and not inspect.isabstract(found):
        return found
    known = {name.rpartition(".")[2]: name for name in _names(kind)}
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean '{known[near[0]]}'?" if near else ""
    raise UserError(f"{at}: '{path}' is no {kind.__name__}; there are {', '.join(known)}{hint}")


def _filled(kind: type, value: Any, at: str) -> Any:
    """A frozen dataclass from its keys."""
    if not isinstance(value, Mapping):
        raise _wrong(kind, value, at)
    hints = get_type_hints(kind)
    known = [part.name for part in fields(kind)] if is_dataclass(kind) else []
    prefix = f"{at}." if at else ""
    for key in value:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"; did you mean '{prefix}{near[0]}'?" if near else f"; there are {', '.join(known)}"
            raise UserError(f"{prefix}{key}: there is no such setting{hint}")
    return kind(**{key: _build(hints[key], item, f"{prefix}{key}") for key, item in value.items()})


def subclasses(kind: type) -> Iterator[type]:
    """All classes below one, however deep."""
    cls: type
    for cls in kind.__subclasses__():
        yield cls
        yield from subclasses(cls)


def _names(kind: type) -> list[str]:
    """What can be chosen, by the names by which it is imported."""
    return [class_path(cls) for cls in subclasses(kind) if not inspect.isabstract(cls)]


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", NoneType: "null"}


def _expected(kind: Any) -> str:
    arguments, origin = get_args(kind), get_origin(kind)
    if origin in (Union, UnionType):
        return " or ".join(map(_expected, arguments))
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        return f"a list ({_expected(arguments[0])} each)"
    if origin is dict or is_dataclass(kind):
        return "keys and values"
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _wrong(kind: Any, value: Any, at: str) -> UserError:
    return UserError(f"{at}: expected {_expected(kind)}, got {value!r}")
