"""Images where they lie: files, members of a zip archive, rows of a dataset; each is known by its content."""

import hashlib
import io
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.data.disguises import refuse_disguised
from fedpl.deferred import deferred
from fedpl.errors import UserError

if TYPE_CHECKING:
    from PIL import Image, ImageOps
else:
    Image, ImageOps = map(deferred, ("PIL.Image", "PIL.ImageOps"))

# What Pillow would squeeze into 8 bits by cutting off all that is brighter.
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True, kw_only=True)
class Picture(ABC):
    """An image that has not been decoded.

    Attributes:
        name: What it is called where it lies: without the folders that it can be moved with.
        digest: Of its bytes, hexadecimal; empty: they have not been read.
        lasting: Whether what is decoded from it is worth keeping for the next run.
    """

    name: str
    digest: str = ""
    lasting: bool = True

    @abstractmethod
    def read(self) -> bytes:
        """Its bytes.

        Raises:
            UserError: If they are not there.
        """

    @property
    @abstractmethod
    def at(self) -> str:
        """Where it lies, for messages."""


@dataclass(frozen=True, kw_only=True)
class FilePicture(Picture):
    """A file."""

    path: str

    def read(self) -> bytes:
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from error

    @property
    def at(self) -> str:
        return self.path


@dataclass(frozen=True, kw_only=True)
class ZipPicture(Picture):
    """A member of a zip archive, which is not unpacked."""

    path: str
    member: str

    def read(self) -> bytes:
        try:
            return archive(self.path).read(self.member)
        # Encrypted members are a RuntimeError, methods of compression that are not known another.
        except (OSError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(
                f"{self.at}: cannot be read: {' '.join(str(error).split())}; write the archive again"
            ) from error

    @property
    def at(self) -> str:
        return f"{self.path}: {self.member}"


@dataclass(frozen=True, kw_only=True)
class RowPicture(Picture):
    """A cell of a dataset (``datasets``), whose rows stay on disk.

    Attributes:
        rows: The dataset with its images not decoded.
        row: Which row, from 0.
        column: Which column.
    """

    rows: Any = field(compare=False, repr=False)
    row: int
    column: str

    def read(self) -> bytes:
        cell = self.rows[self.row][self.column]
        if cell["bytes"] is not None:
            return bytes(cell["bytes"])
        return FilePicture(name=self.name, path=str(cell["path"])).read()

    @property
    def at(self) -> str:
        return f"{self.name}: {self.column!r}"


@dataclass(frozen=True, kw_only=True)
class GivenPicture(Picture):
    """Bytes that somebody hands over."""

    content: bytes = field(repr=False)
    lasting: bool = False

    def read(self) -> bytes:
        return self.content

    @property
    def at(self) -> str:
        return self.name


def known(picture: Picture) -> Picture:
    """The same with the digest of its content."""
    return replace(picture, digest=_digest(picture.read()))


def asked(images: Sequence[str | Path | bytes]) -> tuple[Picture, ...]:
    """Images that are only to be answered: paths, or bytes of files."""
    found: list[Picture] = []
    for i, one in enumerate(images):
        if isinstance(one, bytes):
            found.append(GivenPicture(name=f"image {i + 1}", content=one))
        else:
            found.append(FilePicture(name=str(one), path=str(one), lasting=False))
    return tuple(found)


def decoded(picture: Picture) -> "Image.Image":
    """An image as RGB, upright as its camera was held; what is transparent is white.

    Of several frames the first is taken. Gray values and CMYK are converted.

    Raises:
        UserError: If it is none that Pillow can decode whole, or has more than 8 bits a channel.
    """
    content = picture.read()
    if picture.digest and _digest(content) != picture.digest:
        raise UserError(f"{picture.at}: has changed since the data were read; start again")
    if not content:
        raise UserError(f"{picture.at}: is empty, expected an image; leave it out, or fetch it again")
    refuse_disguised(picture.at, content[:256], "utf-8")
    try:
        opened = Image.open(io.BytesIO(content))
        opened.load()
        image: Image.Image = ImageOps.exif_transpose(opened)
        deep, mode = image.mode in _DEEP, image.mode
        if image.has_transparency_data:
            seen = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
        image = image.convert("RGB")
    # Decoders raise whatever broken bytes lead them to (struct.error, SyntaxError, IndexError, ...).
    except Exception as error:
        reason = " ".join(str(error).split()).partition(" <_io")[0] or type(error).__name__
        raise UserError(
            f"{picture.at}: is no image that can be decoded ({reason}); leave it out, or fetch it again"
        ) from error
    if deep:
        raise UserError(
            f"{picture.at}: has more than 8 bits a channel (mode {mode}), expected 8; save it with 8"
        )
    return image


def archive(path: str) -> zipfile.ZipFile:
    """A zip archive, opened once in a process as long as it does not change.

    Raises:
        zipfile.BadZipFile, OSError: If it is none.
    """
    return _archive(path, os.stat(path).st_mtime_ns, os.getpid())


@lru_cache(maxsize=8)
def _archive(path: str, changed: int, process: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # a process of its own has a place of its own in the file


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
