"""``python -m fedpl.site``: a site whose data stay where they are."""
# PYTHON_ARGCOMPLETE_OK

import argparse
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.cli import add_import, import_named, make_parser, parse, split_options
from fedpl.deferred import deferred
from fedpl.endings import run_main
from fedpl.errors import UserError

if TYPE_CHECKING:
    from fedpl.runs import residence
else:
    residence = deferred("fedpl.runs.residence")

_PROGRAM = "python -m fedpl.site"
_DESCRIPTION = """Hold the clients of one organisation ready for a server elsewhere: read the data, load the
model, and answer at a door that only this machine and this user can knock at. Flower's SuperNode beside it
carries messages there (docs/howto/flower.md). What clients remember, the site's secret and the adapters in
the end are files in its folder."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check the configuration, then import the heavy parts and stay."""
    options, words = split_options(_PROGRAM, _DESCRIPTION, _add, sys.argv[1:] if argv is None else argv)
    if not re.fullmatch(r"[\w.@+-]+", options.name):
        raise UserError(f"--name: a single word, got '{options.name}'")
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads: at least 1, got {options.threads}")
    import_named(options.modules)
    os.environ.setdefault("TQDM_DISABLE", "1")  # its log is for lines
    config = parse(make_parser(_PROGRAM, ""), words)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("fedpl").setLevel(logging.INFO)
    residence.stay(config, options.name, options.folder, options.threads)
    return 0


def _add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="the site's, which no other has")
    parser.add_argument(
        "--folder", type=Path, required=True, help="the site's own, new or as an earlier process left it"
    )
    parser.add_argument("--threads", type=int, help="of torch on a CPU; rounding depends on it")
    add_import(parser)


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
