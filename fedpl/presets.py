"""What ships with fedpl as YAML: configurations and methods, found by name wherever it is installed."""

import re
from difflib import get_close_matches
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fedpl.errors import UserError
from fedpl.method import Method
from fedpl.settings import Tree, build, flat, plain

# How the server computes and steps, whatever the method: kept when a method is chosen by its name.
_KEPT = ("stale_discount", "server_lr", "server_momentum")


def shipped() -> Path:
    """The folder of all presets: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return next(
        p for p in (package / "configs", package.parent / "configs") if (p / "default.yaml").is_file()
    )


def file(name: str, kind: str = "") -> Path:
    """A YAML file of the user's, or one that ships.

    Args:
        name: A path, or a name: ``debug``, ``experiment/partial``, ``configs/debug.yaml``; where only one has
            it, the last part alone will do.
        kind: Folder of the presets in which to look: method, experiment, sweep; empty: all.

    Raises:
        UserError: If there is none, or several.
    """
    path = Path(name)
    if path.is_file():
        return path
    parts = path.with_suffix("").parts if path.suffix in (".yaml", ".yml") else path.parts
    wanted = "/".join(parts[1:] if parts[:1] == ("configs",) else parts)
    known = names(kind)
    found = [one for one in known if one == wanted] or [
        one for one in known if one.rpartition("/")[2] == wanted
    ]
    if len(found) == 1 and not path.is_absolute():
        return (shipped() / kind / found[0]).with_suffix(".yaml")
    if len(found) > 1:
        raise UserError(f"'{name}' is several files: {', '.join(found)}; name one of them")
    near = get_close_matches(wanted, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    there = f"no file '{name}', and nothing of this name ships with fedpl"
    raise UserError(f"{there} ({', '.join(known)}){hint}")


def names(kind: str = "") -> list[str]:
    """Names of the shipped files below a folder of the presets, without ending."""
    folder = shipped() / kind
    return sorted(str(path.relative_to(folder).with_suffix("").as_posix()) for path in folder.rglob("*.yaml"))


def about(name: str) -> str:
    """What a method's file says about it in the first sentence below its command."""
    lines = (shipped() / "method" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    said = " ".join(line[1:].strip() for line in takewhile(lambda line: line.startswith("#"), lines[1:]))
    return re.split(r"(?<=\.) (?=[A-Z])", said, maxsplit=1)[0]


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but 1e-3 is a number, as in YAML 1.2 and everywhere else."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"^({_NUMBER})$"), list("-+0123456789."))


def yaml_value(text: str) -> Any:
    """What a word or a line means as YAML; itself where it is none."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        return text


def read_yaml(path: Path) -> Tree:
    """The keys of a YAML file.

    Raises:
        UserError: Naming the file, if it cannot be read or holds no keys.
    """
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


class Preset(NamedTuple):
    """A method's file.

    Attributes:
        method: The method.
        settings: It as settings of a run, complete: it does not matter what they were before.
        beside: What else the file sets, by dotted key.
    """

    method: Method
    settings: Tree
    beside: tuple[str, ...]


def preset(name: str) -> Preset:
    """A method by its name.

    Args:
        name: Of a file in ``configs/method``, or a path to a YAML file of that kind, whose name is the
            method's.

    Raises:
        UserError: If there is no such method, or its file is wrong.
    """
    known = names("method")
    if name not in known and not Path(name).is_file():
        if name.endswith((".yaml", ".yml")):
            raise UserError(f"method: no such file: {name}")
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "a label of your own is --name"
        raise UserError(f"method: there is no method '{name}' among {', '.join(known)}; {hint}")
    path = file(name, "method")
    own = {key: value for key, value in read_yaml(path).items() if key not in ("name", "method")}
    client = dict(own.pop("client", None) or {})
    rule = own.pop("aggregator", None) or {}
    given = {"objective": client.pop("objective")} if "objective" in client else {}
    method = build(Method, {"name": path.stem, "aggregator": rule, **given}, str(path))
    whole = plain(method)
    kept = {key: value for key, value in whole["aggregator"].items() if key not in _KEPT or key in rule}
    if "precision" not in (rule.get("subject") or {}):
        kept["subject"] = {key: value for key, value in kept["subject"].items() if key != "precision"}
    client["objective"] = whole["objective"]
    beside = (*(f"client.{key}" for key in client if key != "objective"), *own)
    return Preset(method, {**own, "name": path.stem, "client": client, "aggregator": kept}, beside)


@cache
def baseline(name: str) -> Method:
    """A method by its name, to run beside another one.

    Raises:
        UserError: As `preset`, or if its file sets what is not a method's.
    """
    found = preset(name)
    if found.beside:
        raise UserError(
            f"baselines: the file of '{name}' sets {', '.join(found.beside)} too, which hold for a whole "
            f"run; compare it by python -m fedpl.compare"
        )
    return found.method


def differences(method: Method) -> list[str]:
    """In what a method is another than the one of its name that ships; nothing for free labels."""
    if method.name not in names("method"):
        return []
    before, now = (dict(flat(plain(one))) for one in (preset(method.name).method, method))
    kept = {*(f"aggregator.{name}" for name in _KEPT), "aggregator.subject.precision"}
    return [
        f"{'client.' * key.startswith('objective')}{key} {now[key]}"
        for key in now
        if key not in kept and before.get(key) != now[key]
    ]
