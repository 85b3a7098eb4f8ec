"""``python -m fedpl.compare``: several methods over several seeds on the same clients."""
# PYTHON_ARGCOMPLETE_OK

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import split_options
from fedpl.compare.columns import DEFAULT, EXTRA
from fedpl.completion import completed, methods
from fedpl.deferred import deferred
from fedpl.endings import going_on, run_main
from fedpl.errors import UserError
from fedpl.records.scores import MARGIN
from fedpl.signpost import add_list_methods
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from fedpl.compare import execute, plan, report
    from fedpl.records import comparison
else:
    comparison = deferred("fedpl.records.comparison")
    execute, plan, report = (deferred(f"fedpl.compare.{name}") for name in ("execute", "plan", "report"))

_PROGRAM = "python -m fedpl.compare"
_DESCRIPTION = """Run several methods over several seeds on the same clients and compare them. Takes all
options of python -m fedpl.fit for all methods. Every run has an ordinary run directory under --out; those
that are finished are not run again, so the same command goes on where it was stopped."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    several = parser.add_argument(
        "--methods",
        default="local,fedavg,fedbip,fedbip_l",
        help="names that --list_methods lists, or paths to YAML files, separated by commas; a method's file "
        "wins over other --config files and yields to dotted options; local is added, as gain and harm are "
        "relative to it",
    )
    completed(several, methods)
    parser.add_argument("--without_local", action="store_true", help="do not add local: no gain, no harm")
    parser.add_argument(
        "--columns",
        default="",
        help="columns of the table and of LaTeX's, separated by commas: the task's scores, "
        + ", ".join((*EXTRA, *DEFAULT)),
    )
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas")
    parser.add_argument("--out", help="directory of the comparison; a new one under runs/ if absent")
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN,
        help="loss of test accuracy against local-only training, as a fraction, beyond which a client counts "
        "as harmed",
    )
    add_list_methods(parser)
    add_output(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Check every run, then import the heavy parts and do those that are missing."""
    argv = sys.argv[1:] if argv is None else argv
    options, rest = split_options(_PROGRAM, _DESCRIPTION, add_options, argv)
    if not 0 <= options.margin < 1:
        raise UserError(f"--margin: a fraction in [0, 1), got {options.margin}")

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    out = Path(options.out or f"runs/compare-{stamp}")
    if out.is_file():
        raise UserError(f"--out: {out} is a file; name a folder")
    terminal, methods = console_of(options), options.methods.split(",")
    if not options.without_local and "local" not in (Path(name).stem for name in methods):
        terminal.print("local is run too: gain and harm are relative to it (else: --without_local)")
        methods = ["local", *methods]
    entries = plan.plan(methods, plan.numbers(options.seeds), rest, out)
    columns = tuple(filter(None, options.columns.split(",")))
    plan.check_columns(columns, entries)
    with going_on(out):
        execute.run_missing(entries, terminal)
    report.write_report(out, entries, options.margin, columns, terminal)
    if options.json:
        print_json({"out": str(out)} | report.headline(comparison.Comparison.read(out)))
    return 0


if __name__ == "__main__":
    run_main(main)
