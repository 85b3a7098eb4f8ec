"""Do two versions of fedpl give the same numbers, bit for bit?

    python -m benchmarks.same_results run before/        # at the old commit: every job, one thread
    python -m benchmarks.same_results run after/         # at the new one, on the same machine; or named jobs
    python -m benchmarks.same_results compare before/ after/

The jobs are the debug job with every method that ships, a few conditions (absent, hostile, private clients,
one by one, bf16) and the default job. What is compared: task vectors of every round, weights, similarities,
scores, losses, adapters. Seconds, paths and names are not results.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

_QUIET = ("--tracking.wandb.mode=disabled", "--tracking.plots=false", "--tracking.progress=false")
_DEBUG = "--config=configs/debug.yaml"
_CONDITIONS = {
    "one-by-one": ("--client.cohort_size=1",),
    "one-by-one-ditto": ("--config=configs/method/ditto.yaml", _DEBUG, "--client.cohort_size=1"),
    "one-by-one-feddpa": ("--config=configs/method/feddpa.yaml", _DEBUG, "--client.cohort_size=1"),
    "bf16": ("--precision=bf16-mixed",),
    "dropout": ("--lora.dropout=0.1", "--client.tokens_per_pass=200"),
    "prefix": ("--lora.layers_to_transform=[4,5]", "--client.model_dropout=false"),
    "masked": ("--client.mask_absent_classes=true", "--client.max_steps=1"),
    "partial": ("--participation.fraction=0.5", "--rounds=4", "--participation.min_clients=1"),
    "partial-ditto": (
        "--config=configs/method/ditto.yaml",
        _DEBUG,
        "--participation.fraction=0.5",
        "--rounds=4",
    ),
    "partial-stale": ("--participation.fraction=0.5", "--rounds=4", "--aggregator.stale_discount=0.5"),
    "lost-late": ("--faults.lost=0.2", "--faults.late=0.2", "--rounds=4"),
    "sign-flip": ("--faults.hostile=0.25", "--faults.strength=3"),
    "gaussian": ("--faults.hostile=0.25", "--faults.attack=gaussian"),
    "scale": ("--faults.hostile=0.25", "--faults.attack=scale", "--faults.strength=5"),
    "label-flip": ("--faults.hostile=0.25", "--faults.attack=label_flip"),
    "private": ("--privacy.clip=1.0", "--privacy.noise_multiplier=0.1"),
}
_IGNORED = ("seconds", "metrics", "method", "name", "versions", "run_dir")


def jobs() -> dict[str, tuple[str, ...]]:
    """Arguments of every job, by name."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(Path("configs/method").glob("*.yaml")):
        found[f"method-{path.stem}"] = (f"--config={path}", _DEBUG, "--baselines=[]")
    for name, arguments in _CONDITIONS.items():
        own = arguments if _DEBUG in arguments else (_DEBUG, *arguments)
        found[f"condition-{name}"] = (*own, "--baselines=[]")
    found["baselines"] = (_DEBUG,)
    found["default"] = ()
    return found


def run(out: Path, names: Sequence[str] = ()) -> None:
    """Run every job that is not there yet, or those named, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MKL_NUM_THREADS": "1"}
    known = jobs()
    for name in names or known:
        folder, arguments = out / name, known[name]
        if (folder / "summary.json").is_file():
            continue
        command = [sys.executable, "-m", "fedpl.fit", *arguments, *_QUIET, "--store_vectors=true"]
        command += ["--accelerator=cpu", f"--run_dir={folder}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        print(name, "ok" if done.returncode == 0 else done.stderr[-500:], flush=True)


def compare(before: Path, after: Path) -> int:
    """Print what differs; the number of jobs that do."""
    wrong = 0
    for name in jobs():
        one, other = (dict(_content(folder / name)) for folder in (before, after))
        if not one or not other:
            wrong += 1
            print(f"{name}: was not run")
            continue
        different = sorted(k for k in one.keys() | other.keys() if not _same(one.get(k), other.get(k)))
        wrong += bool(different)
        print(f"{name}: {f'{len(different)} differ: {different[:3]}' if different else 'equal'}")
    return wrong


def _content(folder: Path) -> Iterator[tuple[str, object]]:
    """Every number of a run, by a name."""
    if not (folder / "summary.json").is_file():
        return
    summary = json.loads((folder / "summary.json").read_text())
    for key in ("weights", "similarity"):
        if isinstance(summary.get(key), str):  # kept beside the summary
            summary[key] = np.load(folder / summary[key]).tolist()
    yield from _flat(summary, "summary.json")
    for number, line in enumerate((folder / "metrics.jsonl").read_text().splitlines()):
        yield from _flat(json.loads(line), f"metrics.jsonl:{number}")
    for path in sorted(folder.glob("vectors/**/*.npy")):
        yield str(path.relative_to(folder)), np.load(path)
    for path in sorted((*folder.glob("adapters/*/*.safetensors"), *folder.glob("personal/*/*.safetensors"))):
        for tensor, value in load_file(path).items():
            yield f"{path.relative_to(folder)}:{tensor}", value


def _flat(value: object, prefix: str) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _IGNORED:
                yield from _flat(item, f"{prefix}/{key}")
    elif isinstance(value, list):
        yield prefix, value
    else:
        yield prefix, value


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return type(one) is type(other) and one == other


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    if command == "run":
        run(Path(first), rest)
    else:
        raise SystemExit(min(compare(Path(first), Path(rest[0])), 1))
