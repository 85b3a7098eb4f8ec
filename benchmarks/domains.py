"""``python -m benchmarks.domains``: MiniLM on clients that are domains or tasks, by shipped experiments.

Four studies: CLINC150's ten domains, six sentence tasks, VADER's four domains with sentiment as classes and
as numbers. Rows are capped as in the default job (CLINC150: at three of each class), so that all of it takes
half an hour of one core; the caps are in the JSON. Settings were fixed before the first run and nothing was
tuned. By ``fedpl.compare``, whose options it takes; finished runs under ``--out`` are not repeated.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.groups.populations import TASKS, rows_of
from benchmarks.methods import keep
from fedpl.compare import __main__ as compare
from fedpl.files import write_atomically

METHODS = "local,fedavg,fedbip,fedbip_l,fedbip_g,pfedgraph"
Row = dict[str, Any]


def clinc() -> Iterator[Row]:
    """Rows of CLINC150 that are in scope."""
    return (row for row in rows_of("clinc150") if row["domain"] != "oos")


def sentences() -> Iterator[Row]:
    """Rows of the six tasks that have a text."""
    return (row for row in rows_of("sentconv_tasks") if row["task"] in TASKS and row["text"].strip())


def sentiment() -> Iterator[Row]:
    """Sentences whose mean rating is far enough from 0 to be called positive or negative."""
    for row in rows_of("vader_hutto2014"):
        if abs(row["rating"]) > 0.5:
            yield row | {"sentiment": "positive" if row["rating"] > 0 else "negative"}


def ratings() -> Iterator[Row]:
    """Sentences with their mean ratings."""
    return iter(rows_of("vader_hutto2014"))


@dataclass(frozen=True)
class Study:
    """A shipped experiment on a table.

    Attributes:
        rows: Of the table.
        train: Training rows a client at most.
        test: Test rows a client at most.
    """

    rows: Callable[[], Iterator[Row]]
    train: int
    test: int

    @property
    def settings(self) -> dict[str, str]:
        """What differs from the experiment's file."""
        return {
            "data.splitting.max_train": str(self.train),
            "data.splitting.max_validation": "30",
            "data.splitting.max_test": str(self.test),
            "precision": "bf16-mixed",
            "evaluation.every": "0",
            "tracking.plots": "false",
            "tracking.wandb.mode": "disabled",
        }


STUDIES = {
    "clinc_domains": Study(clinc, train=45, test=100),
    "sentence_tasks": Study(sentences, train=32, test=120),
    "vader_domains": Study(sentiment, train=32, test=120),
    "vader_regression": Study(ratings, train=32, test=120),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Compare on each study, and keep what was found."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m benchmarks.domains", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/domains"), help="folder of the comparisons")
    parser.add_argument("--only", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    options, rest = parser.parse_known_args(argv)
    for name in options.only:
        study, out = STUDIES[name], options.out / name
        table = options.out / f"{name}.jsonl"
        lines = [json.dumps(row) for row in study.rows()]
        options.out.mkdir(parents=True, exist_ok=True)
        write_atomically(table, "\n".join(lines).encode())
        words = [word for key, value in study.settings.items() for word in (f"--{key}", value)]
        source = ("--config", f"configs/experiment/{name}.yaml", "--data.paths", f"[{table}]")
        compare.main(["--methods", METHODS, "--out", str(out), *source, *words, *rest])
        keep(out, name, {"rows": len(lines), "settings": study.settings, "options": rest})


if __name__ == "__main__":
    main()
