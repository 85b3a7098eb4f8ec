"""Whose updates are in whose aggregate of a run, with what the run began with."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.records.earlier import Holding
from fedpl.records.given import given
from fedpl.records.rounds import RoundRecord
from fedpl.tracking.matrices import read_matrix

START = "state/start"


Given: TypeAlias = "tuple[tuple[str, ...], Float[np.ndarray, 'clients senders']]"


def is_known(folder: Path, config: Config) -> bool:
    """Whether a run says whose updates its aggregates hold."""
    began = config.start_from is None or (folder / START / Holding.FILE).is_file()
    return began and not config.aggregator.receive.several


def given_in(folder: Path, config: Config, records: Sequence[RoundRecord]) -> Given:
    """How many task vectors of a column's client, in whole or in part, a row's aggregate holds.

    Args:
        folder: The run directory.
        config: What was run.
        records: Its rounds, at least one.

    Returns:
        Ids by column: the run's clients, then those whom only the earlier runs had with whose models it
        began; and a row for each client of the run.

    Raises:
        UserError: If the run does not say it.
    """
    rule, clients = config.aggregator, records[0].clients.id
    if rule.receive.several:
        raise UserError(
            f"{config.name}: its clients choose among several models, and the run does not record what each "
            f"of these holds"
        )
    names, before = clients, None
    if config.start_from is not None:
        try:
            found = Holding.read(folder / START)
        except UserError as error:
            raise UserError(
                f"{folder} began with the models of {config.start_from}, and does not say whose updates "
                f"those hold ({error})"
            ) from error
        names, before = found.clients, found.given
    mixes = "models" if rule.combine.shifts_base else getattr(rule.combine, "mixes", "updates")
    if mixes == "followers" and rule.granularity != "model":  # who follows in a few blocks does not show
        mixes = "models"
    rounds = (
        (
            read_matrix(folder / "matrices", record.round, "weights"),
            [rule.weighting.one_for_all or age == 0 for age in record.clients.age],
        )
        for record in records
    )
    return names, given(rounds, mixes, before)[: len(clients)]


def holding(earlier: Given, stay: Sequence[str], clients: Sequence[str], averages: bool) -> Holding:
    """Whose updates are in the models that a run begins with.

    Args:
        earlier: Of the run whose models they are, as from `given_in`.
        stay: Of whose models the mean is.
        clients: The run's.
        averages: Whether its method has one model for all, so that all begin with the mean.
    """
    senders, table = earlier
    names = (*clients, *(client for client in senders if client not in set(clients)))
    place = {client: row for row, client in enumerate(senders)}
    columns = [names.index(client) for client in senders]
    found = np.zeros((len(names), len(names)), np.float32)
    mean = table[[place[client] for client in stay]].mean(0)
    for row, client in enumerate(clients):
        own = table[place[client]] if client in place and place[client] < len(table) else mean
        found[row, columns] = np.maximum(own, mean) if averages else own
    return Holding(clients=names, given=found)
