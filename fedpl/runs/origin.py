"""What a run began with: settings, data, start model, versions. Who goes on with it is held to that."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.interop import on_host
from fedpl.presets import yaml_value
from fedpl.records.earlier import Earlier
from fedpl.records.messages import Census
from fedpl.records.plain import optional
from fedpl.records.record import Kept
from fedpl.runs.resume import refuse_changes
from fedpl.settings import build
from fedpl.versions import versions


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin(Kept):
    """What a run began with.

    Attributes:
        settings: Its configuration, as YAML.
        data: Digest of the data of all clients: texts, labels, splits, classes.
        start: Digest of θ₀.
        versions: Of Python and of the packages that results depend on.
        begun: With which run's models its clients began; absent: at θ₀. The models lie in
            ``start`` beside the file.
    """

    FILE: ClassVar[str] = "origin.json"
    SEALED: ClassVar[bool] = True

    settings: str
    data: str
    start: str
    versions: Mapping[str, str]
    begun: Earlier | None = optional()

    @classmethod
    def of(cls, config: Config, census: Census, begun: Earlier | None = None) -> "Origin":
        """What a run that begins now begins with.

        Args:
            config: What is run.
            census: All clients.
            begun: With which run's models; None: at θ₀.
        """
        return cls(
            settings=replace(config, run_dir=None).to_yaml(),
            data=data_digest(census),
            start=hashlib.blake2b(on_host(census.initial).tobytes(), digest_size=16).hexdigest(),
            versions=versions(),
            begun=begun,
        )

    def refuse(self, now: "Origin", saved: Config) -> None:
        """Refuse to go on with something else.

        Args:
            now: What the run would go on with.
            saved: What is in its ``config.yaml``.

        Raises:
            UserError: If the file was edited, or if data or start model are others.
        """
        began = build(Config, yaml_value(self.settings))
        refuse_changes(began, saved, "its config.yaml was edited since it began")
        self.refuse_others(now, "resume")

    def refuse_others(self, now: "Origin", what: str) -> None:
        """Refuse other data and another start model.

        Args:
            now: What there is.
            what: What is refused, for the message.

        Raises:
            UserError: Naming what differs.
        """
        for part, name in (
            (self.data == now.data, "clients' data"),
            (self.start == now.start, "numbers of the start model"),
        ):
            if not part:
                raise UserError(
                    f"{what}: the {name} are no longer those of the run; put them back, or start a new run"
                )

    def changed(self, now: "Origin") -> Iterator[str]:
        """Which versions are others, in words."""
        for name, before in self.versions.items():
            found = now.versions.get(name, "none")
            if found != before:
                yield f"{name} {before} → {found}"


def data_digest(census: Census) -> str:
    """A name for the data of all clients, by which runs know that they have the same."""
    origins = [[member.client, member.origin] for member in census.members]
    return hashlib.blake2b(json.dumps(origins).encode(), digest_size=16).hexdigest()
