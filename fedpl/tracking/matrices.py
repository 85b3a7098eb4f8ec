"""Every round's similarity and weights as files of their own: the report and `fedpl.Run` read them."""

from pathlib import Path
from typing import Literal

import numpy as np

from fedpl.errors import UserError
from fedpl.files import write_array
from fedpl.records.plain import LARGEST, Matrix
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord, mean_over_blocks, over_all
from fedpl.rounds.loop import RoundResult

Name = Literal["similarity", "weights"]


class Matrices:
    """Writes sᵢₖ and pᵢₖ of every round, averaged over blocks, in float32.

    Of many clients of which a part was looked at these alone, and beside them which they are.

    Args:
        folder: Where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        clients, rows = len(record.clients.id), result.rows
        few = len(rows) < clients and clients > LARGEST
        if few:
            among = np.zeros(clients, bool)
            among[list(rows)] = True
            write_array(_path(self.folder, result.round, "among"), among)
        for name in ("similarity", "weights"):
            matrix = mean_over_blocks(getattr(result, name)).astype(np.float32)
            if not few:
                matrix = over_all(matrix, rows, clients, float(name == "weights"))
            write_array(_path(self.folder, result.round, name), matrix)

    def finish(self, summary: RunSummary) -> None:
        """The files are whole already."""


def read_matrix(folder: Path, round: int, name: Name) -> Matrix:
    """A matrix that `Matrices` wrote, with a row for each client of the run.

    Raises:
        UserError: If there is none of this round.
    """
    path, beside = _path(folder, round, name), _path(folder, round, "among")
    try:
        matrix = np.load(path, allow_pickle=False)
        if not beside.exists():
            return matrix
        among = np.load(beside, allow_pickle=False)
        return over_all(matrix, np.flatnonzero(among).tolist(), len(among), float(name == "weights"))
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}; name a round that the run has done") from error


def _path(folder: Path, round: int, name: str) -> Path:
    return folder / f"round-{round:04d}-{name}.npy"
