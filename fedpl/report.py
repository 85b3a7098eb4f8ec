"""``python -m fedpl.report RUN_DIR``: draw a run's pictures again from its records."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import run_main
from fedpl.deferred import deferred

if TYPE_CHECKING:
    from fedpl.pictures import plots
else:
    plots = deferred("fedpl.pictures.plots")


def main(argv: Sequence[str] | None = None) -> int:
    """Draw into ``plots/`` and print the files' names."""
    parser = argparse.ArgumentParser(prog="python -m fedpl.report", description="Draw a run's pictures.")
    parser.add_argument("run_dir", type=Path, help="a finished run's directory")
    arguments = parser.parse_args(argv)

    for path in plots.draw_run(arguments.run_dir):
        print(path)
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
