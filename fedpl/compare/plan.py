"""What a comparison runs: an ordinary run directory per method and seed, all checked before any work."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fedpl.cli import make_parser, read
from fedpl.compare.columns import known
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.problems import check
from fedpl.records.results import RunSummary
from fedpl.runs.resume import different, saved_configuration

# Settings that the comparison itself decides, and what to use instead.
_OWN = {
    "method": "--methods",
    "name": "--methods, whose files name the methods",
    "seed": "--seeds",
    "run_dir": "--out",
    "baselines": "--methods local,fedavg,...",
    "tracking.wandb.group": "--out, whose name is the group's",
    "tracking.wandb.name": "--out, whose run directories name the runs",
}


class Entry(NamedTuple):
    """One run of a comparison.

    Attributes:
        method: The method's name: that of its file.
        seed: The seed.
        folder: Its run directory.
        config: What is run.
    """

    method: str
    seed: int
    folder: Path
    config: Config

    @property
    def summary(self) -> RunSummary | None:
        """Its result; None while the run directory does not hold the whole of it."""
        try:
            return RunSummary.read(self.folder)
        except UserError:
            return None


def numbers(text: str) -> list[int]:
    """Seeds from ``0,1,2``.

    Raises:
        UserError: If it is not a list of different whole numbers from 0.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() for word in words) or len(set(words)) != len(words):
        raise UserError(f"--seeds: expected different whole numbers like 0,1,2, got '{text}'")
    return [int(word) for word in words]


def plan(methods: Sequence[str], seeds: Sequence[int], argv: list[str], out: Path) -> list[Entry]:
    """All runs of a comparison, seed by seed.

    Args:
        methods: Names or files of methods.
        seeds: Seeds.
        argv: Settings for all runs: ``--config`` files and dotted overrides. A method's file comes after the
            former and before the latter.
        out: The comparison's directory.

    Raises:
        UserError: If anything about the runs can be seen to be wrong, or `out` holds other runs.
    """
    for word in argv:
        key = word.removeprefix("--").split("=", 1)[0]
        if word.startswith("--") and key in _OWN:
            raise UserError(f"--{key}: a comparison sets it itself; use {_OWN[key]}")
    names = {Path(name).stem: name for name in methods}
    if len(names) != len(methods):
        raise UserError(f"--methods: name each once, and files differently, got {','.join(methods)}")
    parser = make_parser("python -m fedpl.compare", "")
    asked = {}
    for name, given in names.items():
        try:
            asked[name] = read(parser, argv, method=given)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
    entries = []
    for seed in seeds:
        for name, config in asked.items():
            folder = out / f"{name}-s{seed}"
            own = {"seed": seed, "baselines": [], "tracking.wandb.group": out.name}
            config = with_changes(config, own)
            check(config)
            _check_folder(folder, config)
            entries.append(Entry(name, seed, folder, replace(config, run_dir=str(folder))))
    return entries


def check_columns(columns: Sequence[str], entries: Sequence[Entry]) -> None:
    """Refuse columns that the comparison's table will not have.

    Raises:
        UserError: Naming what there is.
    """
    task = entries[0].config.task
    there = known((*task.metrics, *(task.decoded if task.writes else ())))
    if wrong := [column for column in columns if column not in there]:
        raise UserError(f"--columns: there is no {', '.join(wrong)}; there are {', '.join(there)}")


def _check_folder(folder: Path, config: Config) -> None:
    """Refuse a directory that holds another run than the planned one, finished or not."""
    if not folder.exists():
        return
    if not (folder / "config.yaml").is_file():
        if folder.is_dir() and not any(folder.iterdir()):
            return
        raise UserError(f"--out: {folder} holds no run; name a new folder")
    other = list(different(saved_configuration(folder), config))
    if other:
        raise UserError(f"--out: {folder} was run with another {', '.join(other[:5])}; name a new folder")
