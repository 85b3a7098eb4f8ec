"""A sweep over server settings on recorded task vectors: trials aggregate again and train nothing."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.plain import flat
from fedpl.records.scores import summarise
from fedpl.sweep.outcome import Outcome
from fedpl.sweep.plan import Sweep

if TYPE_CHECKING:
    from fedpl.replay import readings, recording
    from fedpl.runs import prepared
else:
    readings, recording = map(deferred, ("fedpl.replay.readings", "fedpl.replay.recording"))
    prepared = deferred("fedpl.runs.prepared")


def replayed(sweep: Sweep, jobs: int) -> Sweep:
    """The sweep on top of a run's configuration: of the file's command the server's settings are left.

    Args:
        sweep: The sweep.
        jobs: Trials at the same time.

    Raises:
        UserError: If the sweep cannot go through replay.
    """
    others = [
        dimension.name for dimension in sweep.dimensions if not dimension.name.startswith("aggregator.")
    ]
    if others:
        raise UserError(f"--replay: {', '.join(others)} would need training; only aggregator.* can be swept")
    if not sweep.metric.startswith("validation/aggregated/"):
        raise UserError(
            f"--replay: metric.name: validation/aggregated/... is all it gives, got {sweep.metric}"
        )
    if jobs != 1:
        raise UserError("--jobs: a replay runs in one process; leave it out")
    return replace(sweep, fixed=tuple(_server_side(sweep.fixed)), halving=None)


def _server_side(arguments: Sequence[str]) -> list[str]:
    """Those of a command's arguments that set the server's rule."""
    kept, follows = [], False
    for word in arguments:
        if word.startswith("--"):
            follows = word.startswith("--aggregator")
        if follows:
            kept.append(word)
    return kept


class ReplayRunner:
    """Runs trials as chains over a recording.

    Args:
        run: The run directory.

    Raises:
        UserError: If it holds no task vectors.
    """

    def __init__(self, run: Path) -> None:
        recorded = recording.read_recording(run)
        self._replayer = readings.Replayer(recorded, prepared.prepare(recorded.config))

    def __call__(self, task: Any, study: Any) -> Any:
        """A trial's outcome: its rule's chain, scored on validation data after the last round."""
        begin = time.perf_counter()
        try:
            config = task.trials.config(task.values)
            recording.check_same_training(self._replayer.recording, config)
            rule = config.aggregator
        except UserError as error:
            return Outcome("failed", None, 0, time.perf_counter() - begin, str(error))
        rounds = len(self._replayer.recording.rounds)
        state = self._replayer.final(rule)
        found = summarise(self._replayer.score(state, "validation"), self._replayer.metrics)
        value = flat({"validation": {"aggregated": found._asdict()}})[task.sweep.metric]
        seconds = time.perf_counter() - begin
        if math.isnan(value):
            return Outcome("failed", None, rounds, seconds, "no client has validation data")
        return Outcome("complete", value, rounds, seconds)
