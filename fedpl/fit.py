"""``python -m fedpl.fit``: personalised federated fine-tuning."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import add_import, import_named, make_parser, parse, run_main
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.signpost import add_list_methods, head

if TYPE_CHECKING:
    from rich import console

    from fedpl.runs import dry, experiment, resume
else:
    dry, experiment, resume = (deferred(f"fedpl.runs.{name}") for name in ("dry", "experiment", "resume"))
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
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="Say what the data are and what the run is going to take, and train nothing: sizes, labels and "
        "lengths by client, one example as the model sees it, steps, memory, seconds. With --run_dir the "
        "labels are also drawn, beside that folder.",
    )
    add_import(parser)
    add_list_methods(parser)
    parser.description = head(parser)
    run_dir, dry_run, words = _resumed(sys.argv[1:] if argv is None else argv)
    if dry_run and run_dir is not None:
        raise UserError("--dry_run: the run has begun; leave out --resume, or --dry_run to go on with it")
    saved = None if run_dir is None else resume.saved_configuration(run_dir)
    config = parse(parser, words, base=saved)
    if dry_run:
        dry.run(config, console.Console())
        return 0
    if saved is not None:
        resume.refuse_changes(saved, config)
    experiment.run(config, console.Console(), resume=run_dir)
    return 0


def _resumed(argv: Sequence[str]) -> tuple[Path | None, bool, Sequence[str]]:
    """The run to go on with, whether nothing is to be trained, the other words; what is to be imported is."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--resume", type=Path)
    finder.add_argument("--dry_run", action="store_true")
    add_import(finder)
    add_list_methods(finder)
    found, rest = finder.parse_known_args(argv)
    import_named(found.modules)
    return found.resume, found.dry_run, rest


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
