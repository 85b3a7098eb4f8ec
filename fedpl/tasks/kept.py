"""Tokens of many rows: made once for all runs on a machine, in a file that all of them map."""

import fcntl
import hashlib
import logging
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int, Int32

from fedpl.data import Split
from fedpl.data.wording import counted
from fedpl.files import release
from fedpl.tasks.encoding import Said, TextEncoder
from fedpl.tasks.examples import Examples, Sequences

_log = logging.getLogger(__name__)
_Key = TypeVar("_Key", bound=Hashable)
MANY = 10_000  # rows from which on their tokens are kept
_TOGETHER = 500  # rows whose tokens are made before they are written
_SAFE = 20_000  # rows whose tokens are written before they are forced to disk
_TOKEN = np.dtype("<i4")
_ENTRY = np.dtype([("digest", "S16"), ("length", "<u4"), ("cut", "?")])


def encoded(encode: Any, parts: Mapping[_Key, tuple[Split, bool]]) -> dict[_Key, Examples]:
    """Splits as tensors; tokens of many rows lie in the user's cache, where the next run finds them.

    Args:
        encode: From `fedpl.tasks.Task.encoder`.
        parts: Splits, and whether each is to be scored.

    Raises:
        UserError: If a split cannot be encoded.
    """
    many = sum(len(split) for split, _ in parts.values()) >= MANY
    if many and isinstance(encode, TextEncoder) and encode.settings is not None:
        try:
            kept = Kept(encode.key)
            found = _mapped(encode, list(parts.values()), kept)
        except OSError as error:
            _log.warning(
                "cannot keep encoded texts in %s: %s; they are encoded in memory, as every run will; "
                "XDG_CACHE_HOME can name a folder with room",
                _cache(),
                error.strerror or error,
            )
        else:
            made = [encode.examples(*part, own) for part, own in zip(parts.values(), found, strict=True)]
            release(kept.tokens)  # they have been looked at, and are read again when they are trained on
            return dict(zip(parts, made, strict=True))
    return {key: encode(*part) for key, part in parts.items()}


def _mapped(encode: TextEncoder, parts: list[tuple[Split, bool]], kept: "Kept") -> list[Sequences]:
    """The tokens of each split."""
    own = [_digests(encode.said(*part)) for part in parts]
    ends = np.cumsum([len(digests) for digests in own])
    digests, first, which = np.unique(np.concatenate(own), return_index=True, return_inverse=True)
    kept.read()
    if (kept.places(digests) < 0).any():
        with kept.alone():
            kept.read()  # another process may have added them
            new = first[kept.places(digests) < 0]
            if len(new) >= MANY:
                _log.warning(
                    "encoding %s, once: later runs find them in %s", counted(len(new), "text"), kept.folder
                )
            wanted = np.zeros(len(which), bool)
            wanted[new] = True
            kept.add(encode, _some(encode, parts, wanted))
    places = kept.places(digests)
    if (places < 0).any():
        raise OSError("its files are gone again")
    return list(map(kept.sequences, np.split(places[which], ends[:-1])))


def _digests(said: Said) -> np.ndarray:
    found = (hashlib.blake2b(repr(row).encode(), digest_size=16).digest() for row in said.rows)
    return np.fromiter(found, "S16", len(said.rows))


def _some(
    encode: TextEncoder, parts: Iterable[tuple[Split, bool]], wanted: Bool[np.ndarray, "rows"]
) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Some of all rows, with their places."""
    begin = 0
    for part in parts:
        said = encode.said(*part)
        for i in np.flatnonzero(wanted[begin : begin + len(said.rows)]).tolist():
            yield said.rows[i], said.places[i]
        begin += len(said.rows)


class Kept:
    """Tokens of rows in the user's cache, each row known by a digest of what it says.

    Two files: `index` with an entry for each row, `tokens` with their tokens in the same order. An entry is
    written when its tokens are safe on the disk: both are whole after a power cut.

    Args:
        key: Of all that tokens depend on beside their row.

    Attributes:
        tokens: All that are kept, mapped.
    """

    def __init__(self, key: str) -> None:
        self.folder = _cache() / key
        self.tokens: Int32[np.ndarray, "tokens"] = np.empty(0, _TOKEN)
        self._entries = np.empty(0, _ENTRY)
        self._order = np.empty(0, np.int64)
        self._begin = np.empty(0, np.int64)

    def read(self) -> None:
        """What is in the files by now."""
        index, tokens = self.folder / "index", self.folder / "tokens"
        content = index.read_bytes() if index.exists() and tokens.exists() else b""
        entries = np.frombuffer(content, _ENTRY, len(content) // _ENTRY.itemsize)
        ends = np.cumsum(entries["length"], dtype=np.int64)
        room = tokens.stat().st_size // _TOKEN.itemsize if content else 0
        lost = (entries["digest"] == b"") | (ends > room)  # a system that went down may have left zeros
        number = int(lost.argmax()) if lost.any() else len(entries)
        size = int(ends[number - 1]) if number else 0
        self.tokens = np.memmap(tokens, _TOKEN, "r", shape=(size,)) if size else np.empty(0, _TOKEN)
        self._entries = entries[:number]
        self._order = np.argsort(self._entries["digest"])
        self._begin = ends[:number] - self._entries["length"]

    def places(self, digests: np.ndarray) -> Int[np.ndarray, "digests"]:
        """Where rows are among the entries; -1: nowhere."""
        if not len(self._entries):
            return np.full(len(digests), -1)
        known = self._entries["digest"]
        after = np.searchsorted(known, digests, sorter=self._order)
        at = self._order[np.minimum(after, len(known) - 1)]
        return np.where(known[at] == digests, at, -1)

    def sequences(self, places: Int[np.ndarray, "rows"]) -> Sequences:
        """The tokens of entries, where they lie."""
        entries = self._entries[places]
        return Sequences(self.tokens, self._begin[places], entries["length"].astype(np.int64), entries["cut"])

    def add(self, encode: TextEncoder, rows: Iterator[tuple[tuple[Any, ...], str]]) -> None:
        """Make tokens of rows, and append them to the files; see `alone`.

        Args:
            encode: Makes them.
            rows: What each says, and what it is called; none of them is among the entries.
        """
        known = {"index": len(self._entries) * _ENTRY.itemsize, "tokens": len(self.tokens) * _TOKEN.itemsize}
        try:
            with self._file("index") as index, self._file("tokens") as tokens:
                index.truncate(known["index"])  # what was cut off
                tokens.truncate(known["tokens"])
                while part := list(islice(rows, _SAFE)):
                    entries = np.concatenate([*_written(encode, part, tokens)])
                    index.seek(0, os.SEEK_END)
                    index.write(entries.tobytes())
                    _settle(index)
                    known = {"index": index.tell(), "tokens": tokens.tell()}
        except OSError:
            for name, size in known.items():  # a full disk gets room back; others may have mapped the rest
                os.truncate(self.folder / name, size)
            raise
        self.read()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within it no other process adds rows."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._file("lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("waiting for another process that encodes texts into %s", self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _file(self, name: str) -> IO[bytes]:
        return os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "fedpl" / "texts"


def _written(
    encode: TextEncoder, rows: Sequence[tuple[tuple[Any, ...], str]], file: IO[bytes]
) -> Iterator[np.ndarray]:
    """Make tokens of rows and write them behind all that is there; on disk when the last entry has come."""
    file.seek(0, os.SEEK_END)
    for start in range(0, len(rows), _TOGETHER):
        said = Said(*zip(*rows[start : start + _TOGETHER], strict=True))
        made = encode.sequences(said)
        file.write(made.packed.tobytes())
        entries = np.empty(len(said.rows), _ENTRY)
        entries["digest"], entries["length"], entries["cut"] = _digests(said), made.lengths, made.cut
        yield entries
    _settle(file)


def _settle(file: IO[bytes]) -> None:
    """Force what was written to disk."""
    file.flush()
    os.fsync(file.fileno())
