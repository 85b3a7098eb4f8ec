"""``python -m benchmarks.pacs``: PACS, a client a domain, on a tiny ViT that was never trained.

No weights of a model of images can be had as a package: `random:vit` has random ones, so the numbers show
the order of methods on it and nothing of what such models can do. Images, splits and caps are drawn by the
seed, the same for all methods. Settings were fixed before the first run and nothing was tuned. By
``fedpl.compare``, whose options it takes; finished runs under ``--out`` are not repeated.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.groups.populations import shared_file
from benchmarks.methods import RESULTS, keep
from fedpl.compare import __main__ as compare

NOTE = """\
PACS, a client a domain, on `random:vit`: a tiny ViT with random weights that was never trained. The numbers
show the order of methods on it and nothing of what models of images can do. Written by
`python -m benchmarks.pacs`; machine, versions, commit and settings are in the JSON beside it. Seconds depend
on what else the machine did.

"""
METHODS = "local,fedavg,fedbip"
ARCHIVE = "pacs_112.zip"
SETTINGS = {
    "data.splitting.max_train": "50",
    "data.splitting.validation": "0.05",
    "data.splitting.test": "0.1",
    "client.epochs": "2",
    "rounds": "5",
    "evaluation.every": "0",
    "tracking.plots": "false",
    "tracking.wandb.mode": "disabled",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, and keep what was found."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pacs", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/pacs"), help="the comparison's directory")
    options, rest = parser.parse_known_args(argv)
    words = [word for key, value in SETTINGS.items() for word in (f"--{key}", value)]
    compare.main(
        [
            *("--methods", METHODS, "--out", str(options.out)),
            *("--config", "configs/experiment/pacs.yaml", "--data.path", str(shared_file(ARCHIVE))),
            *words,
            *rest,
        ]
    )
    keep(options.out, "pacs", {"model": "random:vit, never trained", "settings": SETTINGS})
    page = RESULTS / "pacs.md"
    page.write_text(NOTE + page.read_text(encoding="utf-8"), encoding="utf-8")


if __name__ == "__main__":
    main()
