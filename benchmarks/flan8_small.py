"""``python -m benchmarks.flan8_small``: methods on federated Flan with SmolLM2-135M, on two cores.

Eight tasks, a client each (FedDPA, NeurIPS 2024), by ``configs/experiment/flan8_small.yaml``, all with
the learning rate that suits local training: this shows the order of methods, not what each could reach. By
``fedpl.compare``, whose options it takes; finished runs under ``--out`` are not repeated.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import fedpl
from benchmarks.groups.populations import shared_file
from benchmarks.methods import keep
from fedpl.compare import __main__ as compare

METHODS = "local,fedavg,fedbip,fedbip_l,fedbip_g,pfedgraph,fedbip_h"
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
    keep(
        options.out,
        "flan8_small",
        {"config": CONFIG, "tasks": tasks(options.out), "cosines": cosines(options.out)},
    )


def tasks(out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """ROUGE-1 of what each task's client received, by seed, method and task; ``floor``: without learning."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(out.glob("*-s*")):
        run = fedpl.Run(path)
        own = {client: one.scores for client, one in run.summary.clients.items()}
        seed = found.setdefault(str(run.config.seed), {})
        seed[run.config.name] = {
            client: scores.aggregated["rouge1"] for client, scores in own.items() if scores.aggregated
        }
        seed["floor"] = {
            client: scores.majority["rouge1"] for client, scores in own.items() if scores.majority
        }
    return found


def cosines(out: Path) -> dict[str, Any]:
    """Of the task vectors that clients of FedBip sent, by seed, round and pair of clients."""
    return {
        path.name.removeprefix("fedbip-s"): _by_round(fedpl.Run(path))
        for path in sorted(out.glob("fedbip-s*"))
    }


def _by_round(run: fedpl.Run) -> dict[str, dict[str, float]]:
    found = {}
    for record in run.records:
        table = run.similarity(record.round)
        pairs = combinations(run.clients, 2)
        found[str(record.round)] = {f"{one}, {other}": float(table.loc[one, other]) for one, other in pairs}
    return found


if __name__ == "__main__":
    main()
