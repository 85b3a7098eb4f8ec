"""``python -m benchmarks.preparing``: seconds and memory until rows of 2,000 clients can be trained.

Made-up sentences in one file of JSON lines, and in one of Parquet, each in a process of its own on one
thread, twice: the second one finds the tokens that the first one has kept, in a cache of their own. Results
are kept under a label (`--label before`), and those of other labels stay in the file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from benchmarks.machine import describe
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "preparing.json"
ENDINGS = (".jsonl", ".parquet")
STARTS = ("first", "second")
_WORDS = 20_000


def rows(number: int, clients: int) -> list[dict[str, str]]:
    """Sentences of 8 to 24 words, which are as frequent as in a language; two classes."""
    stream = np.random.default_rng(0)
    letters = stream.integers(97, 123, (_WORDS, 8), np.uint8)
    ends = stream.integers(2, 9, _WORDS)
    words = [bytes(own[:end]).decode() for own, end in zip(letters, ends, strict=True)]
    law = np.cumsum(1 / np.arange(1, _WORDS + 1))
    lengths = stream.integers(8, 25, number)
    drawn = np.searchsorted(law, stream.random(lengths.sum()) * law[-1])
    texts = np.split(drawn, np.cumsum(lengths)[:-1])
    return [
        {
            "text": " ".join(words[i] for i in own.tolist()),
            "label": ("no", "yes")[i % 2],
            "client": f"client-{i % clients:05d}",
        }
        for i, own in enumerate(texts)
    ]


def written(made: Sequence[dict[str, str]], path: Path) -> None:
    """The rows as a file."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(list(made)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")


def measured(path: Path, start: str) -> dict[str, Any]:
    """What the program found."""
    command = [sys.executable, "-m", "benchmarks.preparing.program", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    cache = path.with_name("cache")
    environment["XDG_CACHE_HOME"] = str(cache)
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    found: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    kept = sum(file.stat().st_size for file in cache.glob("fedpl/texts/*/*"))
    sizes = {"megabytes": round(path.stat().st_size / 1e6, 1), "kept": kept}
    return {"file": path.name, "start": start, **sizes, **found}


def line(found: dict[str, Any]) -> str:
    """A file in one line."""
    parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in found["parts"].items())
    peaks = ", ".join(f"{part} {size / 1e6:,.0f}" for part, size in found["peaks"].items())
    return (
        f"{found['file']}, {found['start']} start: {found['examples']:,} rows of {found['clients']:,} "
        f"clients: "
        f"{found['seconds']['processor']:.1f} s of a core ({parts}); peak MB {peaks}; "
        f"resident {found['resident'] / 1e6:,.0f} MB, kept {found['kept'] / 1e6:,.0f} MB"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparing", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="of each table")
    parser.add_argument("--clients", type=int, default=2_000)
    parser.add_argument("--endings", nargs="+", choices=ENDINGS, default=ENDINGS, help="of the files")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS, help="second: of one cache")
    parser.add_argument("--label", default="after", help="under which the results are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    found = []
    for number in arguments.rows:
        made = rows(number, arguments.clients)
        for ending in arguments.endings:
            with tempfile.TemporaryDirectory(prefix="preparing-") as folder:
                path = Path(folder) / f"rows{ending}"
                written(made, path)
                for start in arguments.starts:
                    found.append(measured(path, start))
                    print(line(found[-1]), flush=True)
    kept = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    write_json(arguments.out, {**kept, arguments.label: {**describe(), "files": found}})


if __name__ == "__main__":
    main()
