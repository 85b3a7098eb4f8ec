"""A run that stored its task vectors, as something to aggregate again."""

from pathlib import Path
from typing import NamedTuple

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.runs.prepared import client_side
from fedpl.tracking.vectors import stored_rounds


class Recording(NamedTuple):
    """A run's rounds.

    Attributes:
        folder: The run directory.
        config: What was run.
        rounds: The files of its rounds' task vectors, from the first on.
    """

    folder: Path
    config: Config
    rounds: tuple[Path, ...]


def recorded(folder: Path) -> Config:
    """The configuration of a run.

    Raises:
        UserError: If the folder holds no run.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} holds no run: there is no config.yaml in it")
    return Config.load(folder / "config.yaml")


def read_recording(folder: Path) -> Recording:
    """A run directory's rounds.

    Raises:
        UserError: If it holds no run, or its task vectors were not stored.
    """
    config = recorded(folder)
    files = stored_rounds(folder / "vectors")
    rounds = sorted(files)
    if not rounds or rounds != list(range(1, len(rounds) + 1)):
        raise UserError(
            f"{folder} has no task vectors of every round: run it again with --store_vectors true"
        )
    return Recording(folder, config, tuple(files.values()))


def check_same_training(recording: Recording, config: Config) -> None:
    """Refuse settings under which other task vectors would have been trained.

    Raises:
        UserError: Naming them.
    """
    before, now = client_side(recording.config), client_side(config)
    different = [name for name in Config.__dataclass_fields__ if getattr(before, name) != getattr(now, name)]
    if config.rounds != recording.config.rounds:
        different.append("rounds")
    if different:
        raise UserError(
            f"{', '.join(different)}: a replay trains nothing, only aggregator.* can differ from the run in "
            f"{recording.folder}"
        )
