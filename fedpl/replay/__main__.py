"""``python -m fedpl.replay``: recorded task vectors under other server settings, without training."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedpl.cli import run_main, split_options
from fedpl.errors import UserError

_PROGRAM = "python -m fedpl.replay"
_DESCRIPTION = """Aggregate the task vectors of a run (--store_vectors true) again under other settings
aggregator.*, and score the resulting aggregates. Nothing is trained, so there are two readings. Chain: the
new rule on the recorded vectors from round 1 on; only round 1 is exact, since later vectors were trained from
other aggregates. One step: the recorded rule up to the round before, the new rule in that round; exact for
that one step."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a replay."""
    parser.add_argument("run", metavar="RUN", help="directory of a run; give it first")
    parser.add_argument(
        "--methods",
        help="names of files in configs/method or paths, separated by commas, instead of aggregator.*",
    )
    parser.add_argument("--reading", choices=("both", "chain", "one_step"), default="both")
    parser.add_argument("--round", type=int, help="the round of the one step; the last if absent")
    parser.add_argument("--test", action="store_true", help="score on test data too, not only on validation")


def main(argv: Sequence[str] | None = None) -> int:
    """Check the recording and the settings, then import the heavy parts and aggregate again."""
    argv = sys.argv[1:] if argv is None else argv
    options, overrides = split_options(_PROGRAM, _DESCRIPTION, add_options, argv)

    from rich.console import Console

    from fedpl.records.scores import summarise
    from fedpl.replay.plan import rules
    from fedpl.replay.readings import Replayer
    from fedpl.replay.recording import read_recording
    from fedpl.replay.report import Reading, SplitScores, write_replay
    from fedpl.runs.prepared import prepare
    from fedpl.server.state import ServerState

    recording = read_recording(Path(options.run))
    last = len(recording.rounds)
    step = options.round or last
    if not 1 <= step <= last:
        raise UserError(f"--round: from 1 to {last}, the rounds of {options.run}, got {options.round}")
    chosen = rules(recording, options.methods, overrides)
    replayer = Replayer(recording, prepare(recording.config))
    splits = ("validation", "test") if options.test else ("validation",)

    def reading(name: str, kind: str, round: int, state: ServerState) -> Reading:
        scores = {split: replayer.score(state, split) for split in splits}
        found = {
            split: SplitScores(statistics=summarise(own, replayer.metrics), clients=own)
            for split, own in scores.items()
        }
        return Reading(rule=name, reading=kind, round=round, splits=found)

    found = []
    state = replayer.final(recording.config.aggregator)
    found.append(reading(recording.config.method, "recorded", last, state))
    for name, rule in chosen.items():
        if options.reading != "one_step":
            state = replayer.final(rule)
            found.append(reading(name, "chain", last, state))
        if options.reading != "chain":
            found.append(reading(name, "one step", step, replayer.one_step(rule, step)))
    write_replay(recording.folder, found, replayer.metrics, replayer.error(), Console())
    return 0


if __name__ == "__main__":
    run_main(main)
