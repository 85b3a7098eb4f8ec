"""``python -m benchmarks.flan8_small``: methods on federated Flan with SmolLM2-135M, on two cores.

Eight tasks, a client each (FedDPA, NeurIPS 2024), by ``configs/experiment/flan8_small.yaml``, all with
the learning rate that suits local training: this shows the order of methods, not what each could reach. By
``fedpl.compare``, whose options it takes; finished runs under ``--out`` are not repeated.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.groups.populations import shared_file
from benchmarks.methods import keep
from fedpl.compare import __main__ as compare

METHODS = "local,fedavg,fedbip,fedbip_l,fedbip_g,pfedgraph"
CONFIG = "configs/experiment/flan8_small.yaml"
TEST = "flan8/flan_test_200_selected_nstrict_1.jsonl"


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, and keep what was found."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flan8_small", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/flan8_small"), help="the comparison's directory"
    )
    options, rest = parser.parse_known_args(argv)
    test = shared_file(TEST)
    compare.main(
        [
            *("--methods", METHODS, "--out", str(options.out), "--config", CONFIG),
            *("--data.paths", f"[{test.parent}/local_training_*.json]", "--data.test_paths", f"[{test}]"),
            *("--tracking.plots", "false", "--tracking.wandb.mode", "disabled"),
            *rest,
        ]
    )
    keep(options.out, "flan8_small", {"config": CONFIG})


if __name__ == "__main__":
    main()
