"""A run's directory, opened: its settings, rounds, matrices and clients as tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedpl.data import FederatedData
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.clients import client_rows
from fedpl.records.newcomer import Newcomer
from fedpl.records.plain import Matrix, flat
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord, read_rounds

if TYPE_CHECKING:
    import pandas

    from fedpl.onboard import past, tables
    from fedpl.onboard import session as onboarding
    from fedpl.page import found
    from fedpl.page import write as page
    from fedpl.pictures import plots
    from fedpl.runs import given as givings
    from fedpl.runs import resume
    from fedpl.tracking import matrices
else:
    past, tables, onboarding = (deferred(f"fedpl.onboard.{name}") for name in ("past", "tables", "session"))
    givings, resume = deferred("fedpl.runs.given"), deferred("fedpl.runs.resume")
    found, page = deferred("fedpl.page.found"), deferred("fedpl.page.write")
    matrices, plots, pandas = map(deferred, ("fedpl.tracking.matrices", "fedpl.pictures.plots", "pandas"))


class Run:
    """A run's directory.

    Args:
        path: Of a run that has been begun. Classes of your own that it was run with have to be imported
            before: a directory gets no code imported.

    Attributes:
        path: The directory.
        config: What was run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = resume.saved_configuration(self.path)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """A run that was made before, finished or not.

        Raises:
            UserError: If the folder holds no run.
        """
        return cls(path)

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"{len(self.records)} of {self.config.rounds} rounds done"
        return f"<fedpl run of {self.config.name} in {self.path}, {state}>"

    @property
    def finished(self) -> bool:
        """Whether all rounds are done and the whole summary is written."""
        try:
            RunSummary.read(self.path)
        except UserError:
            return False
        return True

    @cached_property
    def summary(self) -> RunSummary:
        """Its result.

        Raises:
            UserError: If it is not finished.
        """
        if not self.finished:
            raise UserError(f"{self!r}: no summary yet; go on with fedpl.go_on('{self.path}')")
        return RunSummary.read(self.path)

    @property
    def records(self) -> tuple[RoundRecord, ...]:
        """Its rounds so far."""
        path = self.path / "metrics.jsonl"
        return read_rounds(path) if path.exists() else ()

    @property
    def rounds(self) -> pandas.DataFrame:
        """Its rounds so far, a row each: ``validation/aggregated/mean/accuracy`` and all other numbers."""
        rows = [flat(record.to_json()) for record in self.records]
        return pandas.DataFrame(rows).set_index("round") if rows else pandas.DataFrame()

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids, in the order of rows and columns."""
        return self.records[0].clients.id if self.records else ()

    def similarity(self, round: int | None = None) -> pandas.DataFrame:
        """How alike the clients' task vectors were, sᵢₖ, averaged over blocks.

        Args:
            round: From 1; None: the last.

        Raises:
            UserError: If the round has not been done.
        """
        return self._labelled(matrices.read_matrix(self.path / "matrices", self._round(round), "similarity"))

    def weights(self, round: int | None = None) -> pandas.DataFrame:
        """Mixing weights pᵢₖ, averaged over blocks: row i takes from column k. As `similarity`."""
        return self._labelled(matrices.read_matrix(self.path / "matrices", self._round(round), "weights"))

    @property
    def knows_given(self) -> bool:
        """Whether `given` can say anything."""
        return givings.is_known(self.path, self.config)

    @property
    def given(self) -> pandas.DataFrame:
        """Whose updates are in whose aggregate: how many task vectors of the column's client, in whole or in
        part, the row's aggregate holds; see `fedpl.records.given.given`. With ``start_from`` the columns also
        name those whom only the earlier run had.

        Raises:
            UserError: If the run does not say what is in the models that clients choose among, or with which
                they began.
        """
        records = self.records
        names, found = (
            givings.given_in(self.path, self.config, records) if records else ((), np.zeros((0, 0)))
        )
        return pandas.DataFrame(found, index=list(self.clients), columns=list(names))

    def receivers(self, client: str) -> list[str]:
        """Whose aggregates hold updates of a client: who is concerned when it is to be removed.

        Args:
            client: Its id; it is not among them itself.

        Raises:
            UserError: If there is no such client; or as of `given`.
        """
        table = self.given
        if client not in table.columns:
            raise UserError(f"{self.path} has no client '{client}'; there is {', '.join(self.clients[:8])}")
        return [other for other in self.clients if other != client and table.loc[other, client] > 0]

    @property
    def table(self) -> pandas.DataFrame:
        """The clients of a finished run, a row each: examples, scores of every model, weights of the last
        round, how much was given to others and taken from them over all rounds.

        Raises:
            UserError: If it is not finished.
        """
        summary = self.summary
        found = pandas.DataFrame.from_dict(client_rows(summary), orient="index")
        if self.knows_given:
            given = self.given
            own_part = np.diagonal(given)
            found["given to others"] = given[list(summary.clients)].sum(axis=0).to_numpy() - own_part
            found["taken from others"] = given.sum(axis=1).to_numpy() - own_part
        return found.rename_axis("client")

    def onboard(
        self,
        data: str | Path | FederatedData,
        name: str | None = None,
        start: onboarding.Start = "base",
        rounds: int | None = None,
        serve: onboarding.Served = "aggregated",
        columns: Mapping[str, str] | None = None,
    ) -> tuple[Newcomer, ...]:
        """Adapters for newcomers of the finished run; what ``python -m fedpl.onboard`` does.

        Args:
            data: A table (file, folder or pattern) with the run's columns, or clients with their splits.
            name: Of a single newcomer, whose rows all are.
            start: base or nearest, see `fedpl.onboard.session.onboard`; likewise rounds and serve.
            rounds: Of the run that newcomers go through; None: all, for nearest the first.
            serve: What adapters hold: aggregated, tuned or local.
            columns: Names of the table's columns that are others than the run's: ``{"text": "review"}``.

        Raises:
            UserError: If the run is not finished or kept no task vectors (``store_vectors``), its method has
                no place for newcomers, or the data do not fit.
        """
        gone = past.Past.of(self.path)
        if not isinstance(data, FederatedData):
            data = tables.newcomers(self.config, [str(data)], gone.summary.classes, name, columns)
        return onboarding.onboard(gone, data, start, rounds, serve)

    def report(self) -> list[Path]:
        """Draw the pictures of a finished run into ``plots/``, and write ``report.html``, finished or not."""
        drawn = plots.draw_run(self.path) if self.finished else []
        page.write_page([found.Found.read(self.path)], output := self.path / "report.html")
        return [*drawn, output]

    def _round(self, round: int | None) -> int:
        return len(self.records) if round is None else round

    def _labelled(self, matrix: Matrix) -> pandas.DataFrame:
        return pandas.DataFrame(matrix, index=list(self.clients), columns=list(self.clients))
