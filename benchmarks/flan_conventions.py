"""``python -m benchmarks.flan_conventions``: four tasks of federated Flan × two conventions, on two cores.

The conflict is constructed: of every task's records one client has a half as they are written, another the
other half with each answer replaced by the next of the task's (yes by no, ...), in training and test. So four
pairs of clients read alike and answer apart, and no client has a fellow. By ``fedpl.compare``, whose options
it takes, and ``configs/experiment/flan_conventions.yaml``; ``--table PATH`` only writes the records.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.flan8 import by_task, options_of
from benchmarks.groups.populations import shared_file
from benchmarks.methods import keep
from fedpl.compare import __main__ as compare

METHODS = "local,fedavg,fedbip,fedbip_l,fedbip_g,fedbip_t,pfedgraph"
CONFIG = "configs/experiment/flan_conventions.yaml"
TASKS = ("cola", "glue_qqp", "snli", "trec")
_TEST = "flan8/flan_test_200_selected_nstrict_1.jsonl"
_VALIDATION = 0.2


def records() -> Iterator[dict[str, object]]:
    """Rows of the table; a task's records go to its two clients by turns, per answer."""
    tests = by_task(shared_file(_TEST))
    for number in range(8):
        own = json.loads(shared_file(f"flan8/local_training_{number}.json").read_text(encoding="utf-8"))
        task = own[0]["task"]
        if task not in TASKS:
            continue
        answers = sorted({row["output"] for row in own})
        following = dict(zip(answers, [*answers[1:], answers[0]], strict=True))
        for split, rows in (("train", own), ("test", tests[task])):
            ordered = sorted(rows, key=lambda row: row["output"])  # stable: each answer's by turns
            for i, row in enumerate(ordered):
                convention = ("as-written", "rotated")[i % 2]
                answer = row["output"] if i % 2 == 0 else following[row["output"]]
                # Which training records are for validation: every fifth pair, whatever the answer.
                kept = split == "train" and i // 2 % round(1 / _VALIDATION) == 0
                yield {
                    "client": f"{task}-{convention}",
                    "prompt": row["instruction"],
                    "answer": answer,
                    "options": options_of(row["instruction"]),
                    "group": convention,
                    "split": "validation" if kept else split,
                }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table, compare, and keep what was found."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flan_conventions", description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/flan_conventions"), help="the comparison's directory"
    )
    parser.add_argument("--table", type=Path, help="write the records there, and nothing else")
    options, rest = parser.parse_known_args(argv)
    table = options.table or options.out.with_suffix(".jsonl")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text("".join(json.dumps(row) + "\n" for row in records()), encoding="utf-8")
    if options.table:
        return
    compare.main(
        [
            *("--methods", METHODS, "--out", str(options.out), "--config", CONFIG),
            *("--data.paths", f"[{table}]"),
            *("--tracking.plots", "false", "--tracking.wandb.mode", "disabled"),
            *rest,
        ]
    )
    keep(options.out, "flan_conventions", {"config": CONFIG})


if __name__ == "__main__":
    main()
