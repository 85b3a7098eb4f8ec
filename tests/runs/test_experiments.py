"""Experiments on data that the user brings: each runs by its first line, on a small table."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import fedpl
from fedpl.cli import make_parser, read
from fedpl.data import TextFiles
from tests.conftest import small_rows

ROOT = Path(__file__).parents[2]
CLIENTS = ("one-a", "two-a", "three-b")
ROWS: dict[str, Any] = {
    "clinc_domains": lambda row, i: {
        "split": "oos_val" if i % 9 == 0 else "train",
        "domain": row["client"],
        "intent": f"{row['client']} {row['label']}",
    },
    "sentence_tasks": lambda row, i: {"task": row["client"], "label": int(row["label"] == "yes")},
    "vader_regression": lambda row, i: {"domain": row["client"], "id": str(i), "rating": i % 7 - 3.5},
}
PRIMARY = {"vader_regression": "mae"}


@pytest.mark.parametrize("name", ROWS)
def test_an_experiment_runs_by_its_first_line(name: str, small_model: Path, tmp_path: Path) -> None:
    line = (ROOT / "configs" / "experiment" / f"{name}.yaml").read_text().splitlines()[0]
    words = shlex.split(line.removeprefix("# python -m fedpl.fit "))
    path = tmp_path / words[-1].strip("[]").removesuffix(".gz")
    rows = [{"text": row["text"], **ROWS[name](row, i)} for i, row in enumerate(small_rows(CLIENTS, 30))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words[:-1]]
    tiny = [f"--model.path={small_model}", "--lora.r=2", "--rounds=1", "--client.batch_size=16"]
    config = read(make_parser("fit", ""), [*words, f"[{path}]", *tiny, "--baselines=[]", "--accelerator=cpu"])
    assert isinstance(config.data, TextFiles)
    run = fedpl.run(config, run_dir=str(tmp_path / "run"), tracking__plots=False)
    assert sorted(run.clients) == sorted(CLIENTS)
    assert run.summary.metrics[0].name == PRIMARY.get(name, "accuracy")
