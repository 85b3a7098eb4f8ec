"""``python -m fedpl.export``: a client's adapter or whole model in a folder, or a run's clients as CSV."""
# PYTHON_ARGCOMPLETE_OK

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl import files
from fedpl.cli import Options, add_import, add_whose, import_named
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.records.card import Card
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from fedpl import api
    from fedpl.runs import exporting
else:
    api, exporting = deferred("fedpl.api"), deferred("fedpl.runs.exporting")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder and print its name."""
    parser = Options(
        prog="python -m fedpl.export",
        description="Write a client's model of a finished run into a folder of its own.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--client", help="whose model")
    what.add_argument(
        "--csv",
        action="store_true",
        help="the clients as tables in place of a model: clients.csv (scores, weights, given and taken) and "
        "given.csv (whose updates are in whose aggregate over all rounds)",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="the frozen model with the adapter in its weights, and its tokenizer: transformers loads it "
        "without PEFT; else the adapter alone",
    )
    parser.add_argument("--out", type=Path, help="a new or empty folder; RUN/exports/CLIENT if absent")
    add_whose(parser)
    add_import(parser)
    add_output(parser)
    options = parser.parse_args(argv)
    import_named(options.modules)
    if options.csv:
        written = _tables(options.run, options.out or options.run / "exports")
    else:
        own = options.personal, options.newcomer, options.base, options.model
        written = [exporting.export(options.run, options.client, options.out, options.merge, *own)]
    for path in written:
        console_of(options).print(str(path), soft_wrap=True, highlight=False, markup=False)
    if options.json:
        about = {} if options.csv else {"card": Card.read(written[0]).to_json()}
        print_json({"written": list(map(str, written))} | about)
    return 0


def _tables(run: Path, out: Path) -> list[Path]:
    """Write the tables of a run's clients."""
    found = api.Run.open(run)
    tables = {"clients.csv": found.table}
    if found.knows_given:
        tables["given.csv"] = found.given.rename_axis("taken by")
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            table.to_csv(out / name)
    return [out / name for name in tables]


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
