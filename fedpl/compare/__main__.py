"""``python -m fedpl.compare``: several methods over several seeds on the same clients."""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import run_main, split_options
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.scores import MARGIN
from fedpl.signpost import add_list_methods

if TYPE_CHECKING:
    from rich import console

    from fedpl.compare import execute, plan, report
else:
    execute, plan, report = (deferred(f"fedpl.compare.{name}") for name in ("execute", "plan", "report"))
    console = deferred("rich.console")

_PROGRAM = "python -m fedpl.compare"
_DESCRIPTION = """Run several methods over several seeds on the same clients and compare them. Takes all
options of python -m fedpl.fit for all methods. Every run has an ordinary run directory under --out; those
that are finished are not run again, so the same command goes on where it was stopped."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    parser.add_argument(
        "--methods",
        default="local,fedavg,fedbip,fedbip_l",
        help="names that --list_methods lists, or paths to YAML files, separated by commas; a method's file "
        "wins over other --config files and yields to dotted options",
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
    entries = plan.plan(options.methods.split(","), plan.numbers(options.seeds), rest, out)
    terminal = console.Console()
    execute.run_missing(entries, terminal)
    report.write_report(out, entries, options.margin, terminal)
    return 0


if __name__ == "__main__":
    run_main(main)
