"""A finished run with whose models another one may begin: whether they fit. Imports neither torch nor JAX."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.card import Card
from fedpl.records.results import RunSummary
from fedpl.runs.resume import different, saved_configuration

if TYPE_CHECKING:
    from fedpl.model import weights
else:
    weights = deferred("fedpl.model.weights")

# Settings by which an adapter of one run means something else in another; of the others each run has its own.
_FIXED = ("task.", "lora.", "model.pooling", "model.quantized")
_FREE = ("task.decoding", "lora.dropout")


def problems(config: Config) -> list[str]:
    """Why a run cannot begin with the models of the run that it names in start_from, one line each."""
    try:
        return [f"start_from: {line}" for line in _problems(config, Path(str(config.start_from)))]
    except UserError as error:
        return [f"start_from: {error}"]


def finished(folder: Path) -> RunSummary:
    """The result of a run.

    Raises:
        UserError: If it has none yet.
    """
    try:
        return RunSummary.read(folder)
    except UserError as error:
        raise UserError(
            f"{folder} is not finished, so its last models are not there yet; go on with python -m fedpl.fit "
            f"--resume {folder}"
        ) from error


def check_base(config: Config) -> None:
    """Refuse another frozen model than that of the run with whose models this one is to begin.

    Raises:
        UserError: If it is, or nothing says which one that was.
    """
    if config.start_from is None:
        return
    cards = sorted((Path(config.start_from) / "adapters").glob(f"*/{Card.FILE}"))
    if not cards:
        raise UserError(
            f"start_from: {config.start_from} holds no adapters, whose cards say which frozen model they are "
            f"for; put them back"
        )
    was, now = Card.read(cards[0].parent).base_sha256, weights.digest(config.model.path)
    if was != now:
        raise UserError(
            f"start_from: the adapters of {config.start_from} are for a frozen model with other weights "
            f"(SHA-256 {was[:16]}…) than model.path, {config.model.path}, has ({now[:16]}…); name that model"
        )


def _problems(config: Config, folder: Path) -> Iterator[str]:
    earlier = saved_configuration(folder)
    finished(folder)
    if earlier.aggregator.combine.shifts_base:
        yield (
            f"the models of {folder} lie on frozen weights that '{earlier.name}' has changed, and a new run "
            f"begins on unchanged ones; take a run of another method"
        )
    for method in config.methods:
        if method.aggregator.receive.several:
            yield (
                f"clients of '{method.name}' choose among several models, and a run leaves each client one; "
                f"take another method"
            )
    if config.executor.kind == "flower":
        yield "sites behind Flower do not say which frozen model they have before they join; take none"
    for key, (before, now) in different(earlier, config).items():
        if key.startswith(_FIXED) and not key.startswith(_FREE):
            yield f"{folder} was run with another {key} ({before}, not {now}); take the same"
