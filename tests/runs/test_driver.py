"""What the process of a run needs, and says."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from fedpl.fit import main

if __name__ == "__main__":
    main(sys.argv[1:])
    found = {"lightning", "peft", "torchmetrics", "transformers"} & set(sys.modules)
    sys.exit(f"the driver imports {sorted(found)}" if found else 0)
"""


def test_a_driver_of_workers_imports_nothing_that_trains(small_run: list[str], tmp_path: Path) -> None:
    program, folder = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    options = ["--rounds=1", "--baselines=[]", "--executor.kind=processes", "--executor.workers=1"]
    done = subprocess.run(
        [sys.executable, str(program), *small_run, *options, f"--run_dir={folder}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "summary.json").is_file()
    assert any((folder / "adapters").rglob("README.md"))


def test_a_run_says_nothing_that_is_not_its_own(small_run: list[str], tmp_path: Path) -> None:
    """Neither does what it is made of: in a process of its own, where nothing has been imported before."""
    options = ["--rounds=1", "--baselines=[]", f"--run_dir={tmp_path / 'run'}"]
    done = subprocess.run(
        [sys.executable, "-m", "fedpl.fit", *small_run, *options], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stderr == ""
    for words in ("GPU available", "max_epochs", "litlogger"):
        assert words not in done.stdout
