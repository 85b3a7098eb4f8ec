"""Clients from folders of images, or a zip archive of them: ``<client>/<class>/*.jpg``."""

import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fedpl.data.columns import Columns
from fedpl.data.conventions import AsWritten, Convention, LabelNoise
from fedpl.data.federating import Tabular
from fedpl.data.partition import ByColumn, Partition
from fedpl.data.pictures import FilePicture, Picture, ZipPicture, archive, known
from fedpl.data.reading import Table
from fedpl.data.records import FederatedData, Source
from fedpl.data.splitting import SmallClients, Splitting
from fedpl.data.tables import TextFiles
from fedpl.data.wording import readable, some
from fedpl.errors import UserError

_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_LEFT = ("thumbs.db", "desktop.ini", "__macosx")  # what systems leave behind
_COLUMNS = Columns(image="image")


@dataclass(frozen=True)
class ImageFolder(Source):
    """Clients from images in folders ``<client>/<class>/``, in a folder or in a zip archive, read in place.

    One more folder around all clients makes no difference. Where clients are made up (``partition``), images
    lie in ``<class>/``, whatever is around it.

    Attributes:
        path: The folder, or the zip archive.
        splitting: How to split; ``near_duplicates`` above 0 keeps equal files of a client in one split.
        min_examples: Images that a client needs at least, beside one for each split.
        small_clients: What becomes of clients with fewer: error refuses the data and names them; drop leaves
            them out; train_only trains them on all their images and does not score them.
        partition: Whose an image is: as the folders say, or dealt to made-up clients (Iid, Dirichlet,
            Pathological).
        convention: What groups of clients call the classes: as written (AsWritten), Rotation, Permutation,
            Swap; the groups are their true groups.
        noise: Training labels that are replaced by others.
    """

    path: str = ""
    splitting: Splitting = Splitting()
    min_examples: int = 1
    small_clients: SmallClients = "error"
    partition: Partition = ByColumn()
    convention: Convention = AsWritten()
    noise: LabelNoise = LabelNoise()

    def problems(self) -> Sequence[str]:
        found = [*Tabular.problems(self._rows)]
        if not self.path:
            found.append("data.path: name a folder of images <client>/<class>/*.jpg, or a zip archive of it")
        elif not Path(self.path).exists():
            found.append(f"data.path: no such folder or archive: {self.path}")
        elif Path(self.path).is_file() and not zipfile.is_zipfile(self.path):
            found.append(f"data.path: {self.path} is no zip archive, nor a folder")
        return found

    def load(self, seed: int, known: tuple[str, ...] | None = None) -> FederatedData:
        """Read the images' bytes and split them; they are decoded when the model is known.

        Args:
            seed: The same seed gives the same splits.
            known: The classes, where they are those of a run.
        """
        return self._rows.federate([self._table()], seed, known)

    @property
    def _rows(self) -> TextFiles:
        """What treats images as the rows of a table."""
        return TextFiles(
            columns=_COLUMNS,
            splitting=self.splitting,
            min_examples=self.min_examples,
            small_clients=self.small_clients,
            partition=self.partition,
            convention=self.convention,
            noise=self.noise,
        )

    def _table(self) -> Table:
        names = sorted(name for name in self._names() if _meant(name))
        inside = _below_one(names)
        rows: list[dict[str, Any]] = []
        for name in names:
            *folders, file = PurePosixPath(name).parts[inside:] or ("",)
            is_image = file.lower().endswith(_ENDINGS)
            if self.partition.natural and len(folders) == 2:
                own = {"client": folders[0], "label": folders[1]}
            elif not self.partition.natural and folders:
                own = {"label": folders[-1]}
            elif is_image:
                expected = "<client>/<class>/" if self.partition.natural else "<class>/"
                raise UserError(
                    f"{self.path}: {readable(name)}: expected images in folders {expected}; move it there, "
                    f"or take it away"
                )
            else:
                continue  # a list or a licence beside the folders
            picture = known(self._picture(name, "/".join((*folders, file))))
            rows.append({"image": picture, **own})
        if not rows:
            raise UserError(
                f"{self.path}: holds no images in folders <client>/<class>/, whose names end in "
                f"{', '.join(_ENDINGS)}"
            )
        columns = ("image", "label", *(("client",) if self.partition.natural else ()))
        return Table(self.path, columns, rows, range(1, len(rows) + 1), "image")

    def _names(self) -> Iterator[str]:
        """Every file, by its path inside."""
        root = Path(self.path)
        if root.is_dir():
            yield from (file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
            return
        try:
            names = archive(self.path).namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"{self.path}: cannot be read as a zip archive: {error}") from error
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise UserError(f"{self.path}: holds {some(twice, 3)} more than once; write the archive again")
        yield from (name for name in names if not name.endswith("/"))

    def _picture(self, path: str, name: str) -> Picture:
        if Path(self.path).is_dir():
            return FilePicture(name=name, path=str(Path(self.path) / path))
        return ZipPicture(name=name, path=self.path, member=path)


def _meant(name: str) -> bool:
    """Whether a file is there on purpose."""
    parts = PurePosixPath(name).parts
    return not any(part.startswith(".") or part.lower() in _LEFT for part in parts)


def _below_one(names: Sequence[str]) -> int:
    """1 if all images lie at least three folders deep, in the same first one; else 0."""
    images = [PurePosixPath(name).parts for name in names if name.lower().endswith(_ENDINGS)]
    deep = bool(images) and min(map(len, images)) > 3
    return int(deep and len({parts[0] for parts in images}) == 1)
