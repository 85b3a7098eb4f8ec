"""Several runs as one at W&B: the table and the files of a comparison or of a sweep, in the runs' group."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.config import WandbConfig
from fedpl.deferred import deferred
from fedpl.files import write_atomically
from fedpl.tracking import session
from fedpl.tracking.tracker import beside

if TYPE_CHECKING:
    import wandb
    from PIL import Image
else:
    wandb, Image = map(deferred, ("wandb", "PIL.Image"))


def gather(
    config: WandbConfig,
    kind: str,
    folder: Path,
    files: Sequence[Path],
    table: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, float | int],
) -> str:
    """Log what several runs found as a run of the job type ``report``; the same folder's again as the same.

    Nothing of it ends what it is about: an error is named.

    Args:
        config: As of the runs; their group is the report's.
        kind: comparison or sweep: the type of the artifact.
        folder: Where it lies.
        files: What goes into the artifact; pictures among them are shown.
        table: Rows by column.
        numbers: What stands in the summary.

    Returns:
        Where it is to be found; empty where W&B is disabled or failed.
    """
    if session.choose_mode(config) == "disabled":
        return ""
    with beside(f"the {kind} at Weights & Biases"):
        path = folder / "state" / "wandb-id"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, secrets.token_hex(4).encode())
        name = f"{folder.resolve().name}-report"
        run, _ = session.open_run(config, folder, {}, path.read_text(), job_type="report", name=name)
        try:
            columns: list[Any] = list(dict.fromkeys(column for row in table for column in row))
            data = [[row.get(column) for column in columns] for row in table]
            shown = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
            pictures = {one.stem: wandb.Image(Image.open(one)) for one in files if one.suffix == ".png"}
            run.log({kind: shown, **pictures})
            run.summary.update(numbers)
            artifact = wandb.Artifact(f"{kind}-{run.id}", type=kind)
            for file in files:
                artifact.add_file(str(file))
            run.log_artifact(artifact)
        except BaseException:
            session.end_run(run, folder, 1)
            raise
        found = session.where(run)
        session.end_run(run, folder, 0)
        return found
    return ""
