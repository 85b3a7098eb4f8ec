"""``python -m benchmarks.cohort``: clients and tokens a second, together, one by one, and by Flower."""

import argparse
import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.aggregation.timing import interleaved
from benchmarks.cohort import contestants, default_job
from benchmarks.cohort.causal import NAME
from benchmarks.cohort.plot import draw
from benchmarks.machine import describe
from fedpl.config import Config
from fedpl.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "cohort.json"
SHAPES = ((1, 16), (4, 16), (8, 32))
GPU_SHAPES = ((4, 128), (16, 128))


def compare(arguments: argparse.Namespace, batch: int, tokens: int, clients: int) -> dict[str, Any]:
    """One shape: every way trains the same clients, turn by turn."""
    data = contestants.clients(clients, batch, tokens)
    alone = contestants.make(data, arguments.model, batch, arguments.accelerator, arguments.precision)
    start = alone.foundation.initial().to(alone.foundation.hardware.device)
    ways = {
        f"cohorts of {size}": contestants.cohort(alone, start, size)
        for size in arguments.sizes
        if size <= clients
    }
    if clients <= 16 or arguments.accelerator != "cpu":
        ways["PEFT, fresh Trainer each"] = contestants.peft_with_lightning(alone, start)
        ways["PEFT, bare loop"] = contestants.peft_bare(alone, start)
    if arguments.options:
        size = min(max(arguments.sizes), clients)
        ways["cohort, checkpointing"] = contestants.cohort(alone, start, size, gradient_checkpointing=True)
        if arguments.compile:
            ways["cohort, compiled"] = contestants.cohort(alone, start, size, compile=True)
    taus = {name: call() for name, call in ways.items()}
    reference = taus["PEFT, bare loop"] if "PEFT, bare loop" in taus else next(iter(taus.values()))
    limit = {"frozen model alone": contestants.frozen_limit(alone)}
    timings = interleaved({**ways, **limit}, arguments.turns)
    real = sum(
        len(alone.partitions.examples[client.id, "train"].ids[i])
        for client in data.clients
        for step in alone.partitions.order(client.id, 1)
        for i in step
    )
    flower = _flower(arguments, batch, tokens, clients)
    seconds = {name: timing.seconds for name, timing in timings.items()}
    if flower:
        # Flower ran at another time; the bare loop between its rounds tells how fast the machine then was.
        now = statistics.median(seconds.get("PEFT, bare loop", flower["bare_loop_seconds"]))
        then = statistics.median(flower["bare_loop_seconds"])
        seconds["Flower simulation"] = [value * now / then for value in flower["seconds"]]
    found = {}
    for name, values in seconds.items():
        median = statistics.median(values)
        found[name] = {
            "seconds": values,
            "clients_per_s": clients / median,
            "tokens_per_s": real / median,
            "of_frozen_limit": timings["frozen model alone"].median / median,
            "peak_extra_bytes": timings[name].peak_bytes if name in timings else None,
            "relative_difference_to_peft": float((taus[name] - reference).norm() / reference.norm())
            if name in taus
            else None,
        }
        print(f"{clients:4d} clients, {batch} x {tokens}: {name:28s} {_line(found[name])}", flush=True)
    case = {"clients": clients, "batch": batch, "tokens": tokens, "steps": contestants.STEPS}
    return {**case, "ways": found, "flower_as_measured": flower}


def _line(entry: dict[str, Any]) -> str:
    return (
        f"{entry['clients_per_s']:8.2f} clients/s {entry['tokens_per_s']:9.0f} tokens/s "
        f"{100 * entry['of_frozen_limit']:4.0f} % of the frozen model's speed"
    )


def _flower(arguments: argparse.Namespace, batch: int, tokens: int, clients: int) -> dict[str, list[float]]:
    """Seconds of Flower's rounds, run by the interpreter that has it."""
    if not arguments.flower or clients > 16:
        return {}
    settings = {"model": arguments.model, "batch": batch, "tokens": tokens, "clients": clients}
    settings["threads"] = arguments.threads
    command = [arguments.flower, "-m", "benchmarks.cohort.flower_program", json.dumps(settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    if ended.returncode:
        raise SystemExit(f"Flower's simulation failed:\n{ended.stderr[-2000:]}")
    return json.loads(ended.stdout.strip().splitlines()[-1])


def default_rounds(arguments: argparse.Namespace) -> dict[str, Any]:
    """The default job, the ways one after another in every turn."""
    config = replace(Config(), rounds=1, accelerator=arguments.accelerator)
    ways = default_job.ways(config, config.data.load(config.seed))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(1 if arguments.quick else arguments.turns):
        for name, call in ways.items():
            found[name].append(call())
            print(f"default job: {name:40s} {json.dumps(found[name][-1])}", flush=True)
    return {"rounds": config.rounds, "ways": found}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts asked for, write JSON and picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cohort", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the smallest shape and one turn: a minute")
    parser.add_argument(
        "--parts", nargs="*", choices=["grid", "default", "many"], default=["grid", "default"]
    )
    parser.add_argument("--sizes", nargs="*", type=int, default=[1, 4, 16, 64], help="cohort sizes")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, the same for all")
    parser.add_argument("--model", default=Config().model.path, help=f"as model.path, or {NAME}")
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--options", action="store_true", help="also gradient checkpointing")
    parser.add_argument("--compile", action="store_true", help="with --options: also torch.compile (minutes)")
    parser.add_argument("--many", type=int, default=1000, help="clients of the part 'many'")
    parser.add_argument("--flower", help="Python interpreter of an environment with flwr[simulation]")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    results: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {}
    measured = {**describe(), "threads": arguments.threads, "precision": arguments.precision}
    measured["model"] = arguments.model
    if "grid" in arguments.parts:
        shapes = SHAPES if arguments.accelerator == "cpu" else GPU_SHAPES
        cases = [(*shape, 16) for shape in (shapes[:1] if arguments.quick else shapes)]
        cases += [(*shapes[0], size) for size in arguments.sizes if size > 16 and not arguments.quick]
        arguments.turns = 1 if arguments.quick else arguments.turns
        grid = [compare(arguments, *case) for case in cases]
        results["grid"] = {**measured, "shapes": grid}
    if "default" in arguments.parts:
        results["default job"] = {**measured, **default_rounds(arguments)}
    if "many" in arguments.parts:
        found = default_job.many(arguments.many, arguments.precision, arguments.accelerator)
        print(json.dumps(found), flush=True)
        results["many clients"] = {**measured, **found}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out, results)
    draw(results, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
