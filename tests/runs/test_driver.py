"""What the process of a run needs, and says."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from {module} import main

if __name__ == "__main__":
    main(sys.argv[1:])
    found = {{"lightning", "peft", "torch", "torchmetrics", "transformers"}} & set(sys.modules)
    sys.exit(f"the driver imports {{sorted(found)}}" if found else 0)
"""


def driven(folder: Path, module: str, *arguments: str) -> str:
    """What a command says whose process imports nothing that trains."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(module=module))
    done = subprocess.run([sys.executable, str(program), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_driver_of_workers_imports_nothing_that_trains(small_run: list[str], tmp_path: Path) -> None:
    """Nor does a second one, which goes on with the run, nor who aggregates its task vectors again."""
    folder = tmp_path / "run"
    options = ["--rounds=1", "--baselines=[local]", "--executor.kind=processes", "--executor.workers=1"]
    stored = ["--store_vectors=bf16", "--client.guard=validation"]
    driven(tmp_path, "fedpl.fit", *small_run, *options, *stored, f"--run_dir={folder}")
    assert (folder / "summary.json").is_file()
    assert any((folder / "adapters").rglob("README.md"))
    driven(tmp_path, "fedpl.fit", "--resume", str(folder), "--rounds=2")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
    driven(tmp_path, "fedpl.report", str(folder))
    driven(tmp_path, "fedpl.replay.__main__", str(folder), "--methods=fedavg", "--reading=one_step")


def test_a_driver_knows_what_torch_would_take() -> None:
    program = (
        "import sys; from fedpl.executors.machine import look; found = look(); "
        "assert 'torch' not in sys.modules; import torch; assert look() == found; "
        "assert found.threads == torch.get_num_threads()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
