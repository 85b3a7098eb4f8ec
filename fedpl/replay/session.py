"""One call of a replay: the recording's rounds under every rule, scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from fedpl.records.scores import summarise
from fedpl.replay.readings import Replayer
from fedpl.replay.recording import Recording
from fedpl.replay.report import Reading, Replay, SplitScores, write_replay
from fedpl.runs.folder import RunFolder
from fedpl.runs.origin import Origin
from fedpl.runs.prepared import prepare
from fedpl.server import Aggregator
from fedpl.server.state import ServerState


def run_replay(
    recording: Recording,
    rules: Mapping[str, Aggregator],
    readings: Sequence[str],
    step: int,
    splits: Sequence[str],
    console: Console,
) -> tuple[Path, Replay]:
    """Aggregate again, write what was found and print the table.

    Args:
        recording: The rounds.
        rules: Server rules by name.
        readings: chain, one step.
        step: The round of the one step.
        splits: On what to score.
        console: Where to print.

    Returns:
        The file that was written, and what it holds.
    """
    prepared = prepare(recording.config)
    folder = RunFolder(recording.folder)
    if folder.knows_origin:
        folder.origin.refuse_others(Origin.of(recording.config, prepared.executor.join()), "replay")
    else:
        console.print("replay: the run does not say what data it had; they are taken to be the same")
    replayer = Replayer(recording, prepared)

    def reading(name: str, kind: str, round: int, state: ServerState) -> Reading:
        scores = {split: replayer.score(state, split) for split in splits}
        found = {
            split: SplitScores(statistics=summarise(own, replayer.metrics), clients=own)
            for split, own in scores.items()
        }
        return Reading(rule=name, reading=kind, round=round, splits=found)

    last = len(recording.rounds)
    state = replayer.final(recording.config.aggregator)
    found = [reading(recording.config.name, "recorded", last, state)]
    for name, rule in rules.items():
        if "chain" in readings:
            found.append(reading(name, "chain", last, replayer.final(rule)))
        if "one step" in readings:
            found.append(reading(name, "one step", step, replayer.one_step(rule, step)))
    return write_replay(recording.folder, found, replayer.metrics, replayer.error(), console)
