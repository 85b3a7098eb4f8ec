"""``python -m fedpl.report RUN_DIR ...``: runs' pictures and one page about them, from their records."""
# PYTHON_ARGCOMPLETE_OK

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import Options
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.records.comparison import Comparison
from fedpl.records.scores import MARGIN
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from fedpl.page import found, write
    from fedpl.pictures import plots
else:
    found, write = deferred("fedpl.page.found"), deferred("fedpl.page.write")
    plots = deferred("fedpl.pictures.plots")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw into ``plots/``, write ``report.html`` and print the files' names."""
    parser = Options(
        prog="python -m fedpl.report",
        description="Draw runs' pictures and write one HTML file about them, which needs nothing beside it.",
    )
    parser.add_argument(
        "run_dirs",
        type=Path,
        nargs="+",
        metavar="run_dir",
        help="a run's directory; several: side by side; a comparison's: its table and the runs of its first "
        "seed",
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
    add_output(parser)
    options = parser.parse_args(argv)
    terminal, drawn = console_of(options), list[Path]()
    folders: list[Path] = options.run_dirs
    if not options.margin >= 0:
        raise UserError(f"--margin: a number of at least 0, got {options.margin}")
    if options.output is None and len(folders) > 1:
        raise UserError("--output: name the HTML file for several runs, such as --output report.html")
    if options.output is not None and options.output.is_dir():
        raise UserError(f"--output: {options.output} is a folder; name a file in it")
    output = options.output or folders[0] / "report.html"
    if any((folder / Comparison.FILE).is_file() for folder in folders):
        if len(folders) > 1:
            raise UserError("name a comparison's directory alone, or runs")
        compared = Comparison.read(folders[0])
        runs = [
            found.Found.read(folders[0] / run.run_dir)
            for run in compared.runs
            if run.seed == compared.seeds[0]
        ]
        write.write_page(runs, output, options.margin, compared)
    else:
        drawn = _runs(folders, output, options.margin)
    for path in (*drawn, output):
        terminal.print(str(path), soft_wrap=True, highlight=False, markup=False)
    if options.json:
        print_json({"report": str(output), "pictures": list(map(str, drawn))})
    return 0


def _runs(folders: Sequence[Path], output: Path, margin: float) -> list[Path]:
    """Draw runs and write the page about them; the pictures."""
    runs, drawn = [found.Found.read(folder) for folder in folders], list[Path]()
    for run in runs:
        if run.summary is None:
            print(
                f"{run.folder}: not finished, so no pictures; the page shows what there is", file=sys.stderr
            )
            continue
        drawn += plots.draw_run(run.folder)
    write.write_page(runs, output, margin)
    return drawn


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
