"""``python -m fedpl.fit``: personalised federated fine-tuning."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import add_import, import_named, make_parser, parse, run_main
from fedpl.deferred import deferred
from fedpl.signpost import add_list_methods, head

if TYPE_CHECKING:
    from rich import console

    from fedpl.runs import experiment, resume
else:
    experiment, resume = map(deferred, ("fedpl.runs.experiment", "fedpl.runs.resume"))
    console = deferred("rich.console")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and check the configuration, then import the heavy parts and run."""
    parser = make_parser("python -m fedpl.fit", "Fine-tune one foundation model for many clients.")
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        help="Go on with the interrupted run in this directory, with its configuration; more rounds and "
        "other tracking settings may be named beside it.",
    )
    add_import(parser)
    add_list_methods(parser)
    parser.description = head(parser)
    run_dir, words = _resumed(sys.argv[1:] if argv is None else argv)
    saved = None if run_dir is None else resume.saved_configuration(run_dir)
    config = parse(parser, words, base=saved)
    if saved is not None:
        resume.refuse_changes(saved, config)
    experiment.run(config, console.Console(), resume=run_dir)
    return 0


def _resumed(argv: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """The run to go on with, and the other words; what is to be imported is."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--resume", type=Path)
    add_import(finder)
    add_list_methods(finder)
    found, rest = finder.parse_known_args(argv)
    import_named(found.modules)
    return found.resume, rest


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
