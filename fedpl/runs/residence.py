"""A site of an organisation of its own: data and model in one process that stays, and a door to it."""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.executors.door import Door, secret_of
from fedpl.executors.resident import Resident
from fedpl.executors.settings import ExecutorConfig
from fedpl.files import held, write_atomically, writing
from fedpl.model.weights import digest
from fedpl.records.choice import FOLDER
from fedpl.records.messages import Choose, Deliver
from fedpl.runs.cards import describe
from fedpl.runs.choosing import chosen
from fedpl.runs.sharing import agreed, shifts
from fedpl.runs.sites import here

_log = logging.getLogger(__name__)


def stay(config: Config, name: str, folder: Path, threads: int | None = None) -> None:
    """Let the clients move in, and answer at the door until the process ends.

    Args:
        config: The site's data and model, and the settings that all sites have in common.
        name: Of the site.
        folder: Its own: secret, door, what its clients remember and are left with.
        threads: Of torch on a CPU; None: as it likes.

    Raises:
        UserError: If data, model or folder are not as configured, or another process is this site.
    """
    if config.faults.hostile:
        raise UserError(
            "faults.hostile: attackers are drawn from all clients, of which a site knows its own alone; "
            "simulate them in one process"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    if threads is not None:
        torch.set_num_threads(threads)
    with held(folder):
        door = Door(folder, resident(config, name, folder))
        _log.info("site '%s' is at its door in %s", name, folder)
        try:
            door.serve()
        finally:
            door.close()


def resident(config: Config, name: str, folder: Path) -> Resident:
    """What answers for the clients of a site.

    Args:
        config: As of `stay`; likewise the others.

    Raises:
        UserError: As of `stay`.
    """
    config = replace(config, executor=ExecutorConfig(), run_dir=None)
    local = here(config)
    for note in local.notes:
        _log.info("%s", note)
    census = local.join()
    _log.info("%d clients, %d examples", len(census.members), sum(own.examples for own in census.members))

    def written(notice: Deliver | Choose, method: str) -> None:
        """The folder becomes one from which `fedpl.load` loads."""
        run, choosing = Path(notice.folder), isinstance(notice, Choose)
        own = replace(config, name=method, rounds=max(notice.round, 1))
        write_atomically(run / "config.yaml", own.to_yaml().encode())
        choices = chosen(run, notice.clients) if choosing else None
        describe(own, census, None, run, choices)
        where = run / (FOLDER if choosing else "adapters")
        _log.info(
            "the run has ended; %s in %s", "what clients chose is" if choosing else "adapters are", where
        )

    return Resident(
        local,
        name,
        folder,
        secret_of(folder / "secret"),
        agreed(config),
        digest(config.model.path),
        shifts(config),
        written,
    )
