"""One call of a replay: the recording's rounds under every rule, scored."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from fedpl.records.scores import summarise
from fedpl.replay.readings import Replayer
from fedpl.replay.recording import Recording
from fedpl.replay.report import Reading, SplitScores, write_replay
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
) -> None:
    """Aggregate again, write what was found and print the table.

    Args:
        recording: The rounds.
        rules: Server rules by name.
        readings: chain, one step.
        step: The round of the one step.
        splits: On what to score.
        console: Where to print.
    """
    replayer = Replayer(recording, prepare(recording.config))

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
    write_replay(recording.folder, found, replayer.metrics, replayer.error(), console)
