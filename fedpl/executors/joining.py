"""Who joins, and whether sites have what all must have in common; the server sees no data for it."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedpl.data.wording import some
from fedpl.errors import UserError
from fedpl.executors.letters import Joining
from fedpl.files import make_folder, write_json, writing
from fedpl.records.messages import Census
from fedpl.settings import flat


@dataclass(frozen=True)
class Pins:
    """Which name and which key belong together, from a run's first message on.

    Attributes:
        run: A name of the run that no other has, for the folders of sites.
        keys: What identifies each worker: a node's public key, or its number where it has none.
        path: Where they are kept, in the run directory.
        before: Key by site, as they were when the run began; empty: it begins.
    """

    run: str
    keys: tuple[str, ...]
    path: Path | None = None
    before: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Pins | None":
        """Those of a run that has begun, with the keys in the order of the names.

        Raises:
            UserError: If the file is not what was written.
        """
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            before = {str(site): str(key) for site, key in content["sites"].items()}
            return cls(str(content["run"]), tuple(before[site] for site in sorted(before)), path, before)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"{path} is damaged: {error}; put it back, or start a new run") from error

    def check(self, sites: Sequence[str]) -> None:
        """Refuse names that come twice, and sites that are not those with which the run began.

        Args:
            sites: The names, in the order of the keys.

        Raises:
            UserError: Naming the first of them.
        """
        twice = [site for site, times in Counter(sites).items() if times > 1]
        if twice:
            raise UserError(f"two sites call themselves '{twice[0]}'; give one another name (--name)")
        if not self.before:
            return
        if lost := sorted(set(self.before) - set(sites)):
            raise UserError(f"site '{lost[0]}' was in the run when it began and has not joined")
        for site, key in zip(sites, self.keys, strict=True):
            if site not in self.before:
                raise UserError(f"site '{site}' was not in the run when it began; start a new run for it")
            if self.before[site] != key:
                raise UserError(
                    f"site '{site}' came with another key than when the run began; if it is the same "
                    f"organisation, let it use the old key, or start a new run"
                )

    def keep(self, sites: Sequence[str]) -> None:
        """Write down who the sites are, unless it is; the run directory is there.

        Args:
            sites: The names, in the order of the keys.
        """
        if self.path is None or self.path.exists():
            return
        with writing(self.path):
            make_folder(self.path.parent)
        write_json(self.path, {"run": self.run, "sites": dict(zip(sites, self.keys, strict=True))})


def start_digest(numbers: bytes) -> str:
    """A name for θ₀."""
    return hashlib.blake2b(numbers, digest_size=16).hexdigest()


def agree(joinings: Sequence[Joining], settings: str, shifts: bool) -> Census:
    """The clients of all sites, by id, with what they have in common; θ₀ itself is not in it.

    Args:
        joinings: What each site says of itself.
        settings: That the server was started with, as YAML.
        shifts: Whether a method changes the frozen weights.

    Raises:
        UserError: Naming the site that differs, and in what.
    """
    first = joinings[0]
    for own in joinings:
        if changed := _different(settings, own.settings):
            raise UserError(
                f"site '{own.site}' was started with other settings than the server ({'; '.join(changed)}); "
                f"give all the same"
            )
        if shifts and not own.shifts:
            raise UserError(
                f"site '{own.site}' cannot change its frozen weights, as a method of the run asks; start it "
                f"with the same method (--method)"
            )
        for what, part in _COMMON.items():
            if part(own) != part(first):
                raise UserError(
                    f"site '{own.site}' has another {what} than site '{first.site}' "
                    f"({_shown(part(own))}, not {_shown(part(first))}); give all sites the same"
                )
    members = [member for own in joinings for member in own.census.members]
    twice = [client for client, times in Counter(m.client for m in members).items() if times > 1]
    if twice:
        both = [own.site for own in joinings if twice[0] in own.census.clients]
        raise UserError(
            f"client '{twice[0]}' is at sites {some(both)}; ids must differ, rename it at one of them"
        )
    places = sorted({own.census.place for own in joinings})
    return first.census._replace(
        members=tuple(sorted(members, key=lambda member: member.client)),
        place=f"{len(joinings)} sites ({'; '.join(places)})",
        pairs=any(own.census.pairs for own in joinings),
    )


_COMMON: dict[str, Callable[[Joining], Any]] = {
    "list of labels": lambda own: own.census.labels,
    "set of metrics": lambda own: tuple(metric.name for metric in own.census.metrics),
    "frozen model": lambda own: own.base,
    "adapter layout": lambda own: own.census.layout,
    "start θ₀": lambda own: own.start,
}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return value[:16] if isinstance(value, str) else f"{value.size:,} parameters"


def _different(server: str, site: str) -> list[str]:
    """Settings in which they differ, with both values."""
    if server == site:
        return []
    try:
        one, two = (dict(flat(yaml.safe_load(own))) for own in (server, site))
    except (yaml.YAMLError, RecursionError):
        return ["its own cannot be read"]
    keys = sorted(one.keys() | two.keys())
    gone = "(not there)"
    return [
        f"{key} {one.get(key, gone)} ≠ {two.get(key, gone)}" for key in keys if one.get(key) != two.get(key)
    ]
