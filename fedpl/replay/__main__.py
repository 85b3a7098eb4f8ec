"""``python -m fedpl.replay``: recorded task vectors under other server settings, without training."""
# PYTHON_ARGCOMPLETE_OK

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import add_import, import_named, split_options
from fedpl.completion import completed, methods
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from fedpl.replay import plan, recording, session
else:
    plan, recording, session = (deferred(f"fedpl.replay.{name}") for name in ("plan", "recording", "session"))

_PROGRAM = "python -m fedpl.replay"
_DESCRIPTION = """Aggregate the task vectors of a run (--store_vectors true) again under other settings
aggregator.*, and score the resulting aggregates. Nothing is trained, so there are two readings. Chain: the
new rule on the recorded vectors from round 1 on; only round 1 is exact, since later vectors were trained from
other aggregates. One step: the recorded rule up to the round before, the new rule in that round; exact for
that one step."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a replay."""
    parser.add_argument("run", metavar="RUN", help="directory of a run; give it first")
    several = parser.add_argument(
        "--methods",
        help="names of files in configs/method or paths, separated by commas, instead of aggregator.*",
    )
    completed(several, methods)
    parser.add_argument("--reading", choices=("both", "chain", "one_step"), default="both")
    parser.add_argument("--round", type=int, help="the round of the one step; the last if absent")
    add_import(parser)
    parser.add_argument("--test", action="store_true", help="score on test data too, not only on validation")
    add_output(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the recording and the settings, then import the heavy parts and aggregate again."""
    argv = sys.argv[1:] if argv is None else argv
    options, overrides = split_options(_PROGRAM, _DESCRIPTION, add_options, argv)
    import_named(options.modules)

    recorded = recording.read_recording(Path(options.run))
    last = len(recorded.rounds)
    step = options.round or last
    if not 1 <= step <= last:
        raise UserError(f"--round: from 1 to {last}, the rounds of {options.run}, got {options.round}")
    chosen = plan.rules(recorded, options.methods, overrides)
    readings = ("chain", "one step") if options.reading == "both" else (options.reading.replace("_", " "),)
    splits = ("validation", "test") if options.test else ("validation",)
    done = session.run_replay(recorded, chosen, readings, step, splits, console_of(options))
    if options.json:
        path, found = done
        print_json({"replay": str(path)} | found.to_json())
    return 0


if __name__ == "__main__":
    run_main(main)
