"""``python -m fedpl.report RUN_DIR ...``: runs' pictures and one page about them, from their records."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import run_main
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.records.scores import MARGIN

if TYPE_CHECKING:
    from fedpl.page import found, write
    from fedpl.pictures import plots
else:
    found, write = deferred("fedpl.page.found"), deferred("fedpl.page.write")
    plots = deferred("fedpl.pictures.plots")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw into ``plots/``, write ``report.html`` and print the files' names."""
    parser = argparse.ArgumentParser(
        prog="python -m fedpl.report",
        description="Draw runs' pictures and write one HTML file about them, which needs nothing beside it.",
    )
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="run_dir", help="a run's directory; several: side by side"
    )
    parser.add_argument(
        "--output", type=Path, help="the HTML file; report.html in the directory of a single run if absent"
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=MARGIN,
        help="loss of the primary metric against local-only training, in its own numbers (accuracy: a "
        "fraction), beyond which a client counts as harmed",
    )
    options = parser.parse_args(argv)
    folders: list[Path] = options.run_dirs
    if not options.margin >= 0:
        raise UserError(f"--margin: a number of at least 0, got {options.margin}")
    if options.output is None and len(folders) > 1:
        raise UserError("--output: name the HTML file for several runs, such as --output report.html")
    if options.output is not None and options.output.is_dir():
        raise UserError(f"--output: {options.output} is a folder; name a file in it")
    output = options.output or folders[0] / "report.html"

    runs = [found.Found.read(folder) for folder in folders]
    for run in runs:
        if run.summary is None:
            print(
                f"{run.folder}: not finished, so no pictures; the page shows what there is", file=sys.stderr
            )
            continue
        for path in plots.draw_run(run.folder):
            print(path)
    write.write_page(runs, output, options.margin)
    print(output)
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
