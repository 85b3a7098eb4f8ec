"""A job, killed again and again: what became of it beside what it gives without interruption."""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from safetensors.numpy import load_file

from benchmarks.kills.attempt import Ended, Instant, attempt

# What a run says of files that are not whole, and of pictures or W&B that fail: a kill alone makes neither.
_COMPLAINTS = ("damaged", "cannot be read", "Traceback")
_ELAPSED = ("elapsed", "records", "checksum")  # of a checkpoint; the digests cover the seconds


class Series(NamedTuple):
    """What became of a job.

    Attributes:
        kills: Attempts that were killed.
        resumes: Attempts that went on with a run.
        runs: Runs that came to their end, each killed some times before.
        phases: Kills by where they fell.
        failures: What differs in a run from the reference, or how an attempt failed; empty: all is equal.
    """

    kills: int
    resumes: int
    runs: int
    phases: dict[str, int]
    failures: tuple[str, ...]


def series(argv: Sequence[str], kills: int, stream: random.Random, folder: Path) -> Series:
    """Kill runs of a job until so many kills have been made, and let each come to its end.

    Args:
        argv: The job, without run directory.
        kills: How many kills.
        stream: Where the instants come from.
        folder: An empty folder for the runs. A run that failed or differs is left there.
    """
    whole = folder / "whole"
    reference = attempt([*argv, f"--run_dir={whole}"], folder, folder / "whole.log")
    if reference.code != 0:
        return Series(0, 0, 0, {}, (f"without a kill: {_last_line(folder / 'whole.log')}",))
    expected = content(whole)
    done, resumes, runs = 0, 0, 0
    phases: Counter[str] = Counter()
    failures: list[str] = []
    while done < kills:
        run, log = folder / f"run-{runs}", folder / f"run-{runs}.log"
        while True:
            # Before the directory has its name there is nothing to go on with: the run starts anew.
            go_on = run.exists()
            words = [f"--resume={run}"] if go_on else [*argv, f"--run_dir={run}"]
            at = instant(reference, go_on, stream) if done < kills else None
            ended = attempt(words, folder, log, go_on, at)
            resumes += go_on
            if ended.code != -9:
                break
            done += 1
            phases[_phase(ended, run)] += 1
        runs += 1
        wrong = _failures(ended, expected, run, log)
        failures += [f"run {runs}: {what}" for what in wrong]
        if not wrong:
            shutil.rmtree(run)
    left = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    return Series(done, resumes, runs, dict(phases), (*failures, *(f"left behind: {name}" for name in left)))


def instant(reference: Ended, resumes: bool, stream: random.Random) -> Instant:
    """A moment of a run, or an event in it; earlier ones where it goes on, for there is less of it."""
    share = stream.random() * (stream.random() if resumes else 1)
    if stream.random() < 0.5:
        return Instant("time", share * reference.seconds)
    return Instant("event", 1 + int(share * reference.events))


def content(folder: Path) -> dict[str, Any]:
    """What a run directory holds, by file, without seconds, random ids and W&B's own files."""
    paths = [path for path in folder.rglob("*") if path.relative_to(folder).parts[0] != "wandb"]
    return {str(path.relative_to(folder)): _value(path, folder) for path in paths}


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What differs in the contents of two run directories."""
    both = sorted(expected.keys() & found.keys())
    return [
        *(f"{name} is missing" for name in sorted(expected.keys() - found.keys())),
        *(f"{name} is too much" for name in sorted(found.keys() - expected.keys())),
        *(f"{name} differs" for name in both if found[name] != expected[name]),
    ]


def _value(path: Path, run: Path) -> Any:
    if path.is_dir() or path.name in (
        "wandb-id",
        "report.html",
    ):  # the page shows seconds, and the other files
        return None
    if path.suffix in (".json", ".jsonl"):
        return [json.loads(line, object_hook=_timeless) for line in _documents(path)]
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            metadata = {k: v for k, v in (file.metadata() or {}).items() if k not in _ELAPSED}
        tensors = load_file(path)
        return metadata, {name: (t.dtype, t.shape, t.tobytes()) for name, t in tensors.items()}
    if path.suffix == ".md":  # an adapter's card says where the run is
        return path.read_text().replace(str(run.absolute()), "RUN")
    return path.read_bytes()


def _documents(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "seconds"}


def _phase(ended: Ended, run: Path) -> str:
    """Where a kill fell."""
    begun = any((run / "state").glob("round-*.safetensors"))
    return "first round" if ended.phase in ("training", "server", "recording") and not begun else ended.phase


def _failures(ended: Ended, expected: dict[str, Any], run: Path, log: Path) -> list[str]:
    if ended.code != 0:
        return [f"exit code {ended.code} in {ended.phase}: {_last_line(log)}"]
    said = log.read_text()
    complaints = [f"it said '{sign}'" for sign in _COMPLAINTS if sign in said]
    return complaints + differences(expected, content(run))


def _last_line(log: Path) -> str:
    """What an attempt said last, without the places of its files."""
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    return re.sub(r"(/[\w.,@+ -]+)+/", "", lines[-1])[:300] if lines else "said nothing"
