"""``python -m fedpl.fit``: personalised federated fine-tuning."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fedpl.cli import make_parser, parse, run_main


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and check the configuration, then import the heavy parts and run."""
    parser = make_parser("python -m fedpl.fit", "Fine-tune one foundation model for many clients.")
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="Go on with the interrupted run in this directory, with its configuration; more rounds and "
        "other tracking settings may be named beside it.",
    )
    resume, argv = _resumed(argv)
    config, settings = parse(parser, argv)
    settings.pop("config", None)
    settings.pop("resume", None)
    settings.run_dir = None  # a saved configuration can be run again as it is
    resolved = parser.dump(settings, skip_unset=False)
    if resume is not None:
        from fedpl.runs.resume import refuse_changes, saved_configuration

        refuse_changes(saved_configuration(resume), resolved)

    from rich.console import Console

    from fedpl.runs.experiment import run

    run(config, settings.as_dict(), resolved, Console(), resume=resume)
    return 0


def _resumed(argv: Sequence[str] | None) -> tuple[Path | None, Sequence[str] | None]:
    """The run to go on with, and the command line with that run's configuration before everything else."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--resume", type=Path)
    found, rest = finder.parse_known_args(argv)
    if found.resume is None:
        return None, argv
    from fedpl.runs.resume import saved_configuration

    saved_configuration(found.resume)
    return found.resume, [f"--config={found.resume / 'config.yaml'}", *rest]


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
