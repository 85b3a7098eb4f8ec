"""Federated Flan (FedDPA, NeurIPS 2024; eight tasks, a client each): what answers without learning are worth.

    python -m benchmarks.flan8

ROUGE-1 (F, without stemming, times 100) on the test set: of the best constant answer, of the first option, of
an option at random (its expectation) and of a copy of the input. Learning has to beat the best of them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.groups.populations import shared_file
from fedpl.tasks.metrics import generation_scores

_MARK = "OPTIONS:\n- "


def floors(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """What each way to answer without learning scores on rows of one task.

    Args:
        rows: With instruction and output.
    """
    right = [row["output"] for row in rows]

    def value(answers: Sequence[str]) -> float:
        return 100 * generation_scores(right, answers)["rouge1"]

    options = [options_of(row["instruction"]) for row in rows]
    random = 0.0
    for answer, own in zip(right, options, strict=True):
        random += 100 * generation_scores([answer] * len(own), own)["rouge1"] / len(rows)
    return {
        "constant": max(value([answer] * len(rows)) for answer in set(right)),
        "first option": value([own[0] for own in options]),
        "random option": random,
        "copy": value([row["instruction"] for row in rows]),
    }


def options_of(instruction: str) -> list[str]:
    """The answers among which an instruction asks to choose; one that is empty where there are none."""
    return instruction.partition(_MARK)[2].split("\n- ")


def by_task(path: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of a file of JSON lines, by task."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        found.setdefault(row["task"], []).append(row)
    return found


def main() -> int:
    best = []
    for task, rows in by_task(shared_file("flan8/flan_test_200_selected_nstrict_1.jsonl")).items():
        found = floors(rows)
        best.append(max(found.values()))
        print(f"{task:28} " + "  ".join(f"{name} {value:5.1f}" for name, value in found.items()))
    print(f"mean of the best over {len(best)} tasks: {sum(best) / len(best):.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
