"""Which files a table consists of: single ones, folders, patterns; none of them twice."""

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path

from fedpl.data.wording import readable
from fedpl.errors import UserError

READERS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_ENDINGS = f"{', '.join(READERS)}, optionally with .gz"


def kind_of(path: str | Path) -> str | None:
    """How a file is read, by its ending; None: not at all."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    suffixes = suffixes[:-1] if suffixes[-1:] == [".gz"] else suffixes
    return READERS.get(suffixes[-1]) if suffixes else None


def files_of(path: str) -> list[str]:
    """The file itself, the tables below a folder, or what a pattern fits, sorted; with none, nothing."""
    if Path(path).is_file():
        return [path]
    if path and Path(path).is_dir():
        found = (str(file) for file in Path(path).rglob("*") if file.is_file() and kind_of(file))
    else:
        found = (file for file in glob.iglob(path, recursive=True) if Path(file).is_file())
    return sorted(found)


def path_problems(path: str, setting: str) -> list[str]:
    """What is wrong with one of the setting's paths, without reading it."""
    files = files_of(path)
    if not files:
        empty = path and Path(path).is_dir()
        where = f"no file below {path} that ends in {_ENDINGS}" if empty else f"no such file: {path}"
        return [f"{setting}: {where}"]
    return [f"{setting}: {file}: expected one of {_ENDINGS}" for file in files if kind_of(file) is None]


def stem_of(path: str) -> str:
    """A file's name without its ending."""
    return Path(path[:-3] if path.lower().endswith(".gz") else path).stem


def refuse_twice(paths: Sequence[str]) -> None:
    """Refuse a file that is named twice, also as a copy: its rows would count twice."""
    known: dict[str, str] = {}
    for path in paths if len(paths) > 1 else ():
        with Path(path).open("rb") as file:
            content = hashlib.file_digest(file, "blake2b").hexdigest()
        if content in known:
            raise UserError(
                f"data.paths: {known[content]} and {path} have the same content; name one of them"
            )
        known[content] = path


def refuse_one_name(paths: Sequence[str]) -> None:
    """Refuse files of one name in several folders: their rows would be one client's."""
    known: dict[str, str] = {}
    for path in paths:
        if (name := stem_of(path)) in known:
            raise UserError(
                f"data.columns.client: @file: {known[name]} and {path} have the same name, "
                f"'{readable(name)}', by which clients are called; rename one of them"
            )
        known[name] = path
