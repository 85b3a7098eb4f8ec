"""``python -m fedpl.export``: a client's adapter, or the whole model with it merged in, in a folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import Options, add_import, add_whose, import_named, run_main
from fedpl.deferred import deferred

if TYPE_CHECKING:
    from fedpl.runs import exporting
else:
    exporting = deferred("fedpl.runs.exporting")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the folder and print its name."""
    parser = Options(
        prog="python -m fedpl.export",
        description="Write a client's model of a finished run into a folder of its own.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="directory of a finished run")
    parser.add_argument("--client", required=True, help="whose model")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="the frozen model with the adapter in its weights, and its tokenizer: transformers loads it "
        "without PEFT; else the adapter alone",
    )
    parser.add_argument("--out", type=Path, help="a new or empty folder; RUN/exports/CLIENT if absent")
    add_whose(parser)
    add_import(parser)
    options = parser.parse_args(argv)
    import_named(options.modules)
    print(
        exporting.export(
            options.run,
            options.client,
            options.out,
            options.merge,
            options.personal,
            options.newcomer,
            options.base,
        )
    )
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
