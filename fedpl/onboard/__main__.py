"""``python -m fedpl.onboard``: adapters for newcomers of a finished run."""
# PYTHON_ARGCOMPLETE_OK

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import Options, add_import, import_named
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from rich import text

    from fedpl.data import description
    from fedpl.onboard import past, report, session, tables
else:
    past, report, session, tables = (
        deferred(f"fedpl.onboard.{name}") for name in ("past", "report", "session", "tables")
    )
    description = deferred("fedpl.data.description")
    text = deferred("rich.text")

_DESCRIPTION = """Train newcomers of a finished run that kept its task vectors (--store_vectors true), compare
their task vectors with the recorded ones by the run's own rule, and write an adapter for each into
RUN/newcomers. The run itself is not changed. A client of the run that is named takes its own place: its table
has to hold all its data, old and new."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the run and the table, then import the heavy parts and train the newcomers."""
    parser = Options(prog="python -m fedpl.onboard", description=_DESCRIPTION)
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run")
    parser.add_argument("--data", nargs="+", required=True, help="tables: files, folders or patterns")
    parser.add_argument(
        "--name", help="a single newcomer's, whose rows all are; without a client column the file's name"
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        default=[],
        metavar="KEY=NAME",
        help="columns called otherwise than in the run: text=review label=stars client=site split=none",
    )
    parser.add_argument(
        "--start",
        choices=("base", "nearest"),
        default="base",
        help="base: from the start through the run's rounds; nearest: one look at the first round, then on "
        "from the last aggregates of the neighbours that the rule gives weight to",
    )
    parser.add_argument(
        "--rounds", type=int, help="of the run to go through; all if absent, for nearest the first"
    )
    parser.add_argument(
        "--serve",
        choices=("aggregated", "tuned", "local"),
        default="aggregated",
        help="what the adapter holds: what is received, that after local training, or trained alone",
    )
    add_import(parser)
    add_output(parser)
    options = parser.parse_args(argv)
    import_named(options.modules)
    columns = dict(_pair(word) for word in options.columns)

    gone = past.Past.of(options.run)
    data = tables.newcomers(gone.config, options.data, gone.summary.classes, options.name, columns)
    screen = console_of(options)
    for line in description.describe(data):
        screen.print(text.Text(f"fedpl: {line}"), soft_wrap=True)
    found = session.onboard(gone, data, options.start, options.rounds, options.serve)
    report.say(found, options.run, screen)
    if options.json:
        print_json({"run_dir": str(options.run), "newcomers": [one.to_json() for one in found]})
    return 0


def _pair(word: str) -> tuple[str, str]:
    key, equals, name = word.partition("=")
    if not equals:
        raise UserError(f"--columns: expected KEY=NAME like text=review, got '{word}'")
    return key, name


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
