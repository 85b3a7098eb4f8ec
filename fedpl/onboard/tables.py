"""Newcomers from tables, read as the run's own were."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from fedpl.config import Config
from fedpl.data import ByColumn, Columns, FederatedData, HubText, ImageFolder, Partition, TextFiles
from fedpl.data.cells import word
from fedpl.data.files import files_of, kind_of, stem_of
from fedpl.data.partition import Rows
from fedpl.data.reading import Format, read_table
from fedpl.data.splitting import split_of
from fedpl.errors import UserError


@dataclass(frozen=True)
class _One(Partition):
    """All rows are one client's."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def owners(self, rows: Rows, near_duplicates: float, seed: int) -> Sequence[str]:
        return [self.name] * len(rows.texts)


def newcomers(
    config: Config,
    paths: Sequence[str],
    classes: tuple[str, ...],
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> FederatedData:
    """Newcomers with their examples by split, as their task needs them.

    Columns, splitting, separator and encoding are the run's. Without a client column all rows are one
    newcomer's, called as the file is; a column ``split`` of such words is used. Labels are taken as the table
    has them.

    Args:
        config: The run's.
        paths: Files, folders, patterns; of a run on folders of images a table of them, or one folder or zip
            archive with ``<newcomer>/<class>/``, under a `name` ``<class>/``.
        classes: The run's.
        name: Of a single newcomer, whose rows all are.
        columns: Names of columns that are others than the run's: ``{"text": "review"}``.

    Raises:
        UserError: If a table cannot be read, or a label is none of the classes.
    """
    if isinstance(config.data, ImageFolder) and not any(map(kind_of, paths)):
        return _images(config, config.data, paths, classes, name, columns)
    source = _source(config)
    known = [field.name for field in fields(Columns)]
    for key in columns or {}:
        if key not in known:
            raise UserError(f"--columns: there is no '{key}'; there are {', '.join(known)}")
    named = replace(source.columns, group="", **dict(columns or {}))
    files = [file for path in paths for file in files_of(path)]
    if not files:
        raise UserError(f"--data: no such file: {', '.join(paths)}")
    first = read_table(files[0], [], Format(source.separator, source.encoding))
    declared = named.declared and named.declared in first.columns
    if not declared and named.split != "none":
        words = {word(row["split"]) for row in first.rows if "split" in row}
        if words and all(map(split_of, words)):
            named = replace(named, split="split", time="")
        else:
            named = replace(named, split="")
    if name is None and not named.by_file and named.client not in first.columns:
        if len(files) > 1:
            raise UserError(
                f"--data: {files[0]} has no column '{named.client}'; name it by --columns client=..., or "
                f"client=@file where each file is a newcomer"
            )
        name = stem_of(files[0])
    if name is not None:
        partition: Partition = _One(name)
        source = replace(source, partition=partition)
    source = replace(source, paths=tuple(paths), columns=named)
    if wrong := source.problems():
        raise UserError("; ".join(wrong))
    return config.task.take(source.load(config.seed, classes or None))


def _images(
    config: Config,
    own: ImageFolder,
    paths: Sequence[str],
    classes: tuple[str, ...],
    name: str | None,
    columns: Mapping[str, str] | None,
) -> FederatedData:
    """The same from folders of images."""
    if len(paths) > 1 or columns:
        what = (
            "--columns: folders have none" if columns else "--data: one folder or archive of images at a time"
        )
        raise UserError(f"{what}; or list the images in a table with the columns image, label and client")
    partition: Partition = ByColumn() if name is None else _One(name)
    source = ImageFolder(
        path=paths[0], splitting=own.splitting, small_clients="train_only", partition=partition
    )
    if wrong := source.problems():
        raise UserError("; ".join(wrong))
    return config.task.take(source.load(config.seed, classes or None))


def _source(config: Config) -> TextFiles:
    """How the run read its tables, without what it made of its clients."""
    own = config.data
    if isinstance(own, TextFiles):
        return TextFiles(
            columns=own.columns,
            splitting=own.splitting,
            small_clients="train_only",
            separator=own.separator,
            encoding=own.encoding,
        )
    columns = own.columns if isinstance(own, HubText) else Columns()
    columns = Columns(image="image") if isinstance(own, ImageFolder) else columns
    columns = replace(columns, split="") if columns.by_subset else columns
    return TextFiles(columns=columns, small_clients="train_only")
