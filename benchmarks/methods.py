"""``python -m benchmarks.methods``: every preset over seeds on the default job, by ``fedpl.compare``.

An hour and a half of one core. Takes the comparison's options; finished runs under ``--out`` are not
repeated, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from fedpl.compare import __main__ as compare
from fedpl.files import write_json

RESULTS = Path(__file__).parent / "results"
# Baselines first, then families, then FedBip and ours; whoever knows the groups last.
ORDER = (
    "local,fedavg,fedavg_by_size,fedprox,ditto,apfl,"
    "fedala,feddpa,fedper,fedrep,fedsa,ffa_lora,"
    "flexlora,flora,fedex,fedawa,fedamp,pfedgraph,"
    "cfl,ifca,clusters,krum,fedbip,fedbip_l,"
    "fedbip_avg,fedbip_robust,fedbip_w,fedbip_g,true_groups"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, and keep table, picture and what they were measured on."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("--out", default="runs/methods", help="directory of the comparison")
    options, rest = parser.parse_known_args(argv)
    compare.main(["--methods", ORDER, "--out", options.out, *rest])
    keep(Path(options.out), "methods", {"options": rest})


def keep(out: Path, name: str, about: dict[str, Any]) -> None:
    """Keep a comparison as ``results/NAME.*``, with what it was measured on and `about` it."""
    comparison = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    write_json(RESULTS / f"{name}.json", describe() | about | comparison)
    for ending in ("md", "csv", "png"):
        shutil.copyfile(out / f"comparison.{ending}", RESULTS / f"{name}.{ending}")


if __name__ == "__main__":
    main()
