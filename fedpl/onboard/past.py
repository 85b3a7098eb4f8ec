"""What newcomers need of a finished run: its task vectors, clients, classes; no data of theirs."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fedpl.conditions import FaultsConfig
from fedpl.config import Config, ExecutorConfig
from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.records.messages import Census
from fedpl.records.results import RunSummary
from fedpl.replay.recording import Recording, read_recording
from fedpl.runs.beginning import Beginning
from fedpl.runs.folder import RunFolder
from fedpl.runs.origin import Origin
from fedpl.runs.resume import saved_configuration
from fedpl.server import Local, TrueGroups


class Past(NamedTuple):
    """A finished run.

    Attributes:
        recording: Its task vectors of every round.
        summary: Its result.
        beginning: The models that it began with; None: θ₀ for all.
    """

    recording: Recording
    summary: RunSummary
    beginning: Beginning | None = None

    @classmethod
    def of(cls, folder: Path) -> "Past":
        """A run that newcomers can join.

        Raises:
            UserError: If it is not finished, kept no task vectors, or its method has no place for newcomers.
        """
        config = saved_configuration(folder)
        _refuse_methods(config)
        try:
            summary = RunSummary.read(folder)
        except UserError as error:
            raise UserError(
                f"{folder} is not finished: newcomers join a finished run; go on with python -m fedpl.fit "
                f"--resume {folder}"
            ) from error
        found = cls(read_recording(folder), summary, RunFolder(folder).beginning())
        if len(found.recording.rounds) != summary.rounds:
            raise UserError(
                f"{folder} has task vectors of {len(found.recording.rounds)} rounds and a result of "
                f"{summary.rounds}; put the missing files back"
            )
        return found

    @property
    def config(self) -> Config:
        return self.recording.config

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.recording.folder)

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids, in the order of the rows."""
        return tuple(self.summary.clients)

    @property
    def examples(self) -> tuple[int, ...]:
        """Training examples, in the order of the rows."""
        return tuple(client.examples for client in self.summary.clients.values())

    def settings_for(self, data: FederatedData) -> Config:
        """The run's settings for newcomers: they live in this process; nobody of them fails, attacks or
        chooses (what a newcomer is served is said)."""
        own = {name: one for name, one in self.config.client.per_client.items() if name in data.ids}
        client = replace(self.config.client, per_client=own, guard="none")
        return replace(self.config, client=client, faults=FaultsConfig(), executor=ExecutorConfig())

    def refuse_another_start(self, census: Census) -> None:
        """Refuse newcomers whose θ₀ is another than the run's.

        Raises:
            UserError: If it is.
        """
        if self.folder.knows_origin:
            now = Origin.of(self.config, census)
            replace(self.folder.origin, data=now.data).refuse_others(now, "onboard")


def _refuse_methods(config: Config) -> None:
    rule, name = config.aggregator, config.name
    if isinstance(rule.weighting, Local):
        raise UserError(
            f"{name}: its clients exchange nothing, so there is nothing for a newcomer to receive"
        )
    if isinstance(rule.weighting, TrueGroups):
        raise UserError(
            f"{name}: TrueGroups is told which clients belong together, and nobody tells it of a newcomer; "
            f"take a run of another method, such as fedbip_g, which finds groups"
        )
    if rule.receive.several:
        raise UserError(
            f"{name}: its clients choose among several models before they train, and the task vectors of a "
            f"run do not say what those models were; take a run of another method, such as fedbip_g"
        )
