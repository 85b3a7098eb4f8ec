"""What a run demands of its clients and of the machine, asked before its directory is made."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.interop import free_to_lend
from fedpl.model.memory import free_memory
from fedpl.records.messages import Census
from fedpl.sampling import share_of
from fedpl.server import TrueGroups
from fedpl.server.cutting import least_budget


def check_demands(config: Config, census: Census) -> None:
    """Refuse a run that can be seen to fail.

    Args:
        config: The run.
        census: Its clients.

    Raises:
        UserError: If a method needs to know the clients' groups and the data does not name them, the task
            vectors do not fit into the memory that is free, or a round is not possible in its budget.
    """
    nameless = [member.client for member in census.members if not member.group]
    for method in config.methods:
        if nameless and any(isinstance(part, TrueGroups) for part in _parts(method.aggregator)):
            raise UserError(
                f"{method.name}: TrueGroups needs data that names each client's group, and this data names "
                f"none of client '{nameless[0]}'; leave the method out, or take fedbip_g, which finds groups"
            )
    clients, size, device = len(census.members), census.layout.size, census.initial.device
    # Task vectors and aggregates; several methods also remember their common first round.
    on_disk = config.server.on_disk
    drawn = share_of(census.clients, config.participation)
    rules = [method.aggregator for method in config.methods]
    rows = max(drawn if rule.only_present(census.layout) else clients for rule in rules)
    rows += max(1 if rule.one_model(census.layout) else clients for rule in rules)
    remembered = drawn * (1 if config.start_from is None else 2)  # with the models that they began with
    need = (rows + (remembered if len(rules) > 1 else 0)) * size * 4
    free = min(free_memory(device), free_to_lend(census.initial))
    if need > free and not on_disk:
        raise UserError(
            f"lora.r: the task vectors and aggregates of {clients:,} clients with {size:,} trainable "
            f"parameters each take {need / 1e9:.1f} GB at least, but {free / 1e9:.1f} GB are free on "
            f"{device}; keep them on disk (--server.storage disk), lower lora.r, adapt fewer layers "
            f"(lora.target_modules, lora.layers_to_transform) or take fewer clients"
        )
    budget = config.server.memory_budget
    for method in config.methods if on_disk else ():
        own = drawn if method.aggregator.only_present(census.layout) else clients
        least = -(-least_budget(method.aggregator, census.layout, own) // 2**20)
        if budget < least:
            raise UserError(
                f"server.memory_budget: {method.name} needs at least {least:,} MB for {own:,} clients a "
                f"round with {size:,} trainable parameters each, got {budget:,}"
            )


def _parts(value: Any) -> Iterator[Any]:
    """Settings and all settings inside them."""
    yield value
    if is_dataclass(value):
        for part in fields(value):
            yield from _parts(getattr(value, part.name))
