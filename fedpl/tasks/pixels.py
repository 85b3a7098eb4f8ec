"""Decoded images: once for all runs on a machine, in a file that is mapped; and as a client's examples."""

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import PIL
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from fedpl.data.pictures import Picture, decoded
from fedpl.data.wording import counted
from fedpl.errors import UserError
from fedpl.tasks.examples import Batch, Examples, Sequences

if TYPE_CHECKING:
    from fedpl.model.vision import Preparation

_log = logging.getLogger(__name__)
_DIGEST = 16  # bytes
_TOGETHER = 256  # images that are decoded before they are written
_MANY = 1000  # images whose decoding is announced


class Pixels:
    """Images as one model wants them, each known by its content and decoded once.

    In the user's cache lie two files: `index` with a digest for each image, `pixels` with the images in the
    same order. A digest is written when its image is safe on the disk: both are whole after a power cut.

    Args:
        preparation: How the model wants its images.

    Attributes:
        shape: Of an image: 3, height, width.
        mapped: All images that are in the file, or held here, [images, 3, height, width].
    """

    def __init__(self, preparation: "Preparation") -> None:
        self.preparation = preparation
        self.shape = (3, *preparation.size)
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        key = hashlib.sha256(f"1 {PIL.__version__} {preparation.key}".encode()).hexdigest()[:16]
        self.folder = Path(home) / "fedpl" / "images" / key
        self.mapped: UInt8[np.ndarray, "images 3 height width"] = np.empty((0, *self.shape), np.uint8)
        self._slots: dict[str, int] = {}

    def slots(self, pictures: Sequence[Picture]) -> Int[np.ndarray, "pictures"]:
        """Where each image lies in `mapped`; those that are not there yet are decoded.

        Raises:
            UserError: If one cannot be decoded, or the cache cannot be written.
        """
        if any(picture.digest not in self._slots for picture in pictures):
            try:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self._alone():
                    self._read()
                    absent = {p.digest: p for p in pictures if p.digest not in self._slots}
                    self._add([*absent.values()])
            except OSError as error:
                raise UserError(
                    f"cannot keep the decoded images in {self.folder}: {error.strerror}; set "
                    f"XDG_CACHE_HOME to a folder with room"
                ) from error
        return np.array([self._slots[picture.digest] for picture in pictures], np.int64)

    def _add(self, pictures: Sequence[Picture]) -> None:
        """Decode, and append to the files."""
        if not pictures:
            return
        if len(pictures) >= _MANY:
            _log.warning(
                "decoding %s, once: later runs find them in %s", counted(len(pictures), "image"), self.folder
            )
        known = len(self._slots)
        with self._file("pixels") as pixels, self._file("index") as index:
            pixels.truncate(known * self._bytes)  # what was cut off
            index.truncate(known * _DIGEST)
            for start in range(0, len(pictures), _TOGETHER):
                part = pictures[start : start + _TOGETHER]
                pixels.seek(0, os.SEEK_END)
                pixels.write(self.decoded(part).tobytes())
                _safe(pixels)
                index.seek(0, os.SEEK_END)
                index.write(b"".join(bytes.fromhex(picture.digest) for picture in part))
                _safe(index)
        self._read()

    def decoded(self, pictures: Sequence[Picture]) -> UInt8[np.ndarray, "pictures 3 height width"]:
        """Images that are not kept."""
        found = np.empty((len(pictures), *self.shape), np.uint8)

        def fill(place: int) -> None:
            found[place] = self.preparation(decoded(pictures[place]))

        with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow works outside Python's lock
            for _ in threads.map(fill, range(len(pictures))):
                pass
        return found

    def _read(self) -> None:
        """What is in the files by now."""
        index, pixels = self.folder / "index", self.folder / "pixels"
        content = index.read_bytes() if index.exists() and pixels.exists() else b""
        number = min(len(content) // _DIGEST, pixels.stat().st_size // self._bytes) if content else 0
        digests = (content[i * _DIGEST : (i + 1) * _DIGEST].hex() for i in range(number))
        self._slots = {digest: slot for slot, digest in enumerate(digests)}
        if number:
            self.mapped = np.memmap(pixels, np.uint8, "r", shape=(number, *self.shape))

    @property
    def _bytes(self) -> int:
        return int(np.prod(self.shape))

    def _file(self, name: str) -> IO[bytes]:
        return os.fdopen(os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600), "r+b")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within it no other process adds images."""
        with self._file("lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class Held(NamedTuple):
    """Images in memory, that are only to be answered.

    Attributes:
        mapped: All of them, [images, 3, height, width].
    """

    mapped: UInt8[np.ndarray, "images 3 height width"]


class Pictures(Examples):
    """A client's images, which stay where `Pixels` keeps them.

    Args:
        pixels: Where they lie; the same for all clients.
        slots: Which of them are its own.
        targets: What is right for each.
        states: How many states the model has for an image, in which its cost is counted.

    Attributes:
        lengths: `states`, for each.
    """

    def __init__(
        self, pixels: "Pixels | Held", slots: Int[np.ndarray, "examples"], targets: Tensor, states: int
    ) -> None:
        super().__init__(Sequences.of([]), targets, 0)
        self.pixels = pixels
        self.slots = slots
        self.mass = (1.0,) * len(slots)
        self.lengths = (states,) * len(slots)

    def alike(self) -> Sequence[int]:
        return range(len(self.lengths))  # each for itself

    def collate(self, chosen: Sequence[int]) -> Batch:
        return Batch(taken(self.pixels, self.slots[list(chosen)]), self.targets[list(chosen)])


def taken(
    pixels: Pixels | Held, slots: Int[np.ndarray, "rows"]
) -> dict[str, UInt8[Tensor, "rows 3 height width"]]:
    """Images as the model's arguments; a copy of these alone."""
    return {"pixel_values": torch.from_numpy(np.ascontiguousarray(pixels.mapped[slots]))}


def _safe(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
