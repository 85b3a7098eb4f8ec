"""A run in Weights & Biases: one run per federated run, one step per round, never a prompt."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedpl.config import WandbConfig
from fedpl.files import write_atomically
from fedpl.records.plain import LARGEST, flat
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult
from fedpl.tracking import closing, rows, session

_SHOWN = 20  # matrices of few clients, at most about so many times a run


class WandbTracker:
    """Logs each round and the summary; a round's row is on disk when the round ends.

    Args:
        config: Mode, project, names.
        folder: The run directory; W&B's own files go below it, or into WANDB_DIR.
        settings: What stands in the run's configuration at W&B.
        id: The W&B run's id; a run with this id is gone on with.
        rounds: How many rounds there will be.
        earlier: Rounds that are done already; those that W&B lacks are logged at once.
    """

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        settings: dict[str, Any],
        id: str,
        rounds: int,
        earlier: Sequence[RoundRecord] = (),
    ) -> None:
        self._config = config
        self._rounds = rounds
        self._rows: rows.ClientRows | None = None
        self._best: dict[str, float] = {}
        self._folder = folder
        self.run, self._own = session.open_run(config, folder, settings, id)
        self._mark = folder / "state" / "wandb-round"
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")
        # What a server has, it says; what files hold that are still to be uploaded, is kept beside them.
        self._logged = self._marked() if self.run.offline else self.run.starting_step - 1
        for record in earlier:
            self._log(record, {})

    @property
    def where(self) -> str:
        """Where the run is to be found, or how to upload it."""
        return session.where(self.run)

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        """Log a round's numbers and clients; now and then the matrices."""
        self._log(record, rows.matrices(record, result) if self._due(record) else {})

    def _due(self, record: RoundRecord) -> bool:
        """Whether the matrices are shown; unasked about so many times a run, and none of many clients."""
        every = self._config.matrices
        if every is None:
            every = math.ceil(self._rounds / _SHOWN) if len(record.clients.id) <= LARGEST else 0
        return every > 0 and (record.round == 1 or record.round % every == 0)

    def _log(self, record: RoundRecord, shown: dict[str, Any]) -> None:
        """Log a round, unless an interrupted process did."""
        self._best = closing.better(self._best, record)
        if record.round <= self._logged:
            return
        self._rows = self._rows or rows.ClientRows(len(record.clients.id), self._rounds)
        row = {**flat(record.to_json()), **rows.diagnostics(record.clients), **self._rows.add(record)}
        self.run.log(row | shown, step=record.round if self._own else None, commit=True)
        self.run.summary.update(self._best)
        self._logged = record.round
        write_atomically(self._mark, str(record.round).encode())

    def _marked(self) -> int:
        """The last round that an earlier process logged."""
        return int(self._mark.read_text()) if self._mark.exists() else 0

    def finish(self, summary: RunSummary) -> None:
        """Write the closing scores and the comparison to the run's summary, and end the run."""
        test = closing.scores("test", summary.test, summary.metrics)
        if summary.honest is not None:
            test |= closing.scores("honest", summary.honest, summary.metrics)
        if "WANDB_SWEEP_ID" in os.environ:
            test |= closing.older_names(test)
        self.run.summary.update(
            test | closing.comparison(summary) | self._best | {"total_seconds": summary.seconds.total}
        )
        if self._config.artifacts:
            closing.keep(self.run, summary, self._folder)
        if self._config.alerts:
            closing.alert(self.run, summary)
        session.end_run(self.run, self._folder, 0)

    def close(self) -> None:
        """End the run as failed: what comes next in this process must not go on in it."""
        session.end_run(self.run, self._folder, 1)
