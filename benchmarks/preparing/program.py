"""``python -m benchmarks.preparing.program``: a table of so many clients made ready, in its own process."""

import argparse
import json
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from benchmarks.growth.parts import Parts
from fedpl.cli import make_parser, read
from fedpl.data import TextFiles
from fedpl.data import tables as sources
from fedpl.runs import sites
from fedpl.site import site
from fedpl.tasks import Classification
from fedpl.training import partitions

WATCHED = (
    (sources, "read_table", "read"),
    (TextFiles, "federate", "split"),
    (partitions, "partitions_of", "encode"),
    (Classification, "base", "load the model"),
    (site, "census", "join"),
)


def measure(table: str) -> dict[str, Any]:
    """Seconds of the processor and most memory, by part; of the whole also seconds of a clock."""
    words = ["--config=configs/experiment/text_files.yaml", f"--data.paths=[{table}]", "--accelerator=cpu"]
    config = read(make_parser("fit", ""), words)
    # What is imported is not what is measured.
    config.task.base(config.model, ("no", "yes"))
    import_module("fedpl.training.stacked.backend")
    parts = Parts(time.process_time)
    for owner, name, part in WATCHED:
        parts.watch(owner, name, part)
    clock, processor = time.perf_counter(), time.process_time()
    ready = sites.here(config)
    parts.peak("rest")
    seconds = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    members = ready.join().members
    return {
        "clients": len(members),
        "examples": sum(len(own) for own in ready.site.worker.partitions.examples.values()),
        "digest": members[0].origin,
        "seconds": seconds,
        "parts": dict(parts.seconds),
        "peaks": dict(parts.peaks),
        "resident": parts.resident,
        "lines": ready.notes,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print what was measured as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preparing.program", description=__doc__)
    parser.add_argument("table")
    print(json.dumps(measure(parser.parse_args(argv).table)))


if __name__ == "__main__":
    main()
