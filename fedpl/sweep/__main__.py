"""``python -m fedpl.sweep``: a W&B sweep file, run here, without a server or a login."""
# PYTHON_ARGCOMPLETE_OK

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl import presets
from fedpl.cli import add_import, import_named, split_options
from fedpl.completion import completed, sweeps
from fedpl.deferred import deferred
from fedpl.endings import going_on, run_main
from fedpl.errors import UserError
from fedpl.terminal import add_output, console_of, print_json

if TYPE_CHECKING:
    from fedpl.runs import resume
    from fedpl.sweep import check, plan, replayed, session
else:
    check, plan, replayed, session = (
        deferred(f"fedpl.sweep.{name}") for name in ("check", "plan", "replayed", "session")
    )
    resume = deferred("fedpl.runs.resume")

_PROGRAM = "python -m fedpl.sweep"
_DESCRIPTION = """Search settings by a file in the format of W&B sweeps: the same file works with wandb sweep
and wandb agent. Takes all options of python -m fedpl.fit for all trials. A sweep that was stopped goes on
with the same command and --out: finished trials are kept, those under way are run again."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a sweep."""
    file = parser.add_argument(
        "file", help="a sweep file, or the name of one that ships (lr_rank); give it first"
    )
    completed(file, sweeps)
    parser.add_argument("--trials", type=int, help="how many in all; run_cap and the size of a grid limit it")
    parser.add_argument("--jobs", type=int, default=1, help="trials at the same time, each in a process")
    parser.add_argument("--out", help="directory of the sweep; a new one under runs/ if absent")
    parser.add_argument("--search_seed", type=int, default=0, help="seed of what is tried")
    add_import(parser)
    parser.add_argument(
        "--replay",
        metavar="RUN",
        help="a run directory with stored task vectors: its rounds are aggregated again under each trial's "
        "settings, without training (all parameters must be aggregator.*); only the first round of such a "
        "trial is what training would have given",
    )
    add_output(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the file and what its trials would be, then import the heavy parts and run them."""
    argv = sys.argv[1:] if argv is None else argv
    options, overrides = split_options(_PROGRAM, _DESCRIPTION, add_options, argv)
    import_named(options.modules)
    if options.jobs < 1:
        raise UserError(f"--jobs: at least 1, got {options.jobs}")
    if find_spec("optuna") is None:
        raise UserError("a sweep needs optuna: pip install 'fedpl[sweep]'")

    sweep = plan.read_sweep(presets.file(options.file, "sweep"))
    trials = check.number_of_trials(sweep, options.trials)
    replay = Path(options.replay) if options.replay else None
    if replay is not None:
        sweep = replayed.replayed(sweep, options.jobs)
    settings = check.trials_of(
        sweep, overrides, None if replay is None else resume.saved_configuration(replay)
    )
    check.check_values(sweep, settings)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    out = Path(options.out or f"runs/sweep-{stamp}")
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "study.db").is_file()):
        raise UserError(f"--out: {out} holds something else than a sweep; name a new folder")

    with going_on(out):
        found = session.run_sweep(
            sweep,
            settings,
            list(overrides),
            trials,
            options.jobs,
            options.search_seed,
            out,
            replay,
            console_of(options),
        )
    if options.json:
        print_json({"out": str(out)} | found)
    return 0


if __name__ == "__main__":
    run_main(main)
