"""``python -m fedpl.fit``: personalised federated fine-tuning."""
# PYTHON_ARGCOMPLETE_OK

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import add_import, import_named, make_parser, parse
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.signpost import add_list_methods, head
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from fedpl.page import write
    from fedpl.records import results
    from fedpl.runs import dry, experiment, resume
    from fedpl.tracking import closing
else:
    dry, experiment, resume = (deferred(f"fedpl.runs.{name}") for name in ("dry", "experiment", "resume"))
    write, results = deferred("fedpl.page.write"), deferred("fedpl.records.results")
    closing = deferred("fedpl.tracking.closing")


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
    add_output(parser)
    parser.description = head(parser)
    options, words = _own(sys.argv[1:] if argv is None else argv)
    run_dir, terminal = options.resume, console_of(options)
    if options.dry_run and run_dir is not None:
        raise UserError("--dry_run: the run has begun; leave out --resume, or --dry_run to go on with it")
    saved = None if run_dir is None else resume.saved_configuration(run_dir)
    config = parse(parser, words, base=saved)
    # Said before what takes a while even to import.
    coming = f"fedpl: {config.name}: loads libraries, data and {config.model.path}"
    terminal.print(coming, soft_wrap=True, highlight=False, markup=False)
    if options.dry_run:
        found = dry.run(config, terminal)
        if options.json:
            print_json(found)
        return 0
    if saved is not None:
        resume.refuse_changes(saved, config)
    path = experiment.run(config, terminal, resume=run_dir)
    if (page := write.write_at_end(path, config.tracking)) is not None:
        terminal.print(f"report: {page}", soft_wrap=True, highlight=False, markup=False)
    if options.json:
        print_json({"run_dir": str(path)} | closing.headline(results.RunSummary.read(path)))
    return 0


def _own(argv: Sequence[str]) -> tuple[argparse.Namespace, Sequence[str]]:
    """The options that are no settings, and the other words; what is to be imported is."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--resume", type=Path)
    finder.add_argument("--dry_run", action="store_true")
    add_import(finder)
    add_list_methods(finder)
    add_output(finder)
    found, rest = finder.parse_known_args(argv)
    import_named(found.modules)
    return found, rest


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
