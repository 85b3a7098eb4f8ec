"""One run from configuration to run directory: clients, method, baselines, records."""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

from rich.console import Console

from fedpl.config import Config
from fedpl.executors.memo import FirstRoundMemo
from fedpl.executors.protocol import Executor
from fedpl.executors.shards import open_shards
from fedpl.records.messages import Census
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import RoundResult
from fedpl.runs.cards import describe
from fedpl.runs.choosing import let_choose
from fedpl.runs.closing import close, deliver
from fedpl.runs.demands import check_demands
from fedpl.runs.earlier import check_base
from fedpl.runs.folder import RunFolder
from fedpl.runs.hearing import opening, record_rounds, trackers_of
from fedpl.runs.origin import Origin
from fedpl.runs.prepared import Prepared, prepare
from fedpl.runs.resume import saved_configuration
from fedpl.runs.sharing import private, sealed
from fedpl.runs.standing import Clock, Standing
from fedpl.runs.summary import round_record
from fedpl.runs.warm import take_over
from fedpl.sampling import share_of
from fedpl.server.ondisk import Shards
from fedpl.tracking.progress import Display
from fedpl.tracking.tracker import Tracker


def run(
    config: Config,
    console: Console,
    watchers: Sequence[Tracker] = (),
    resume: Path | None = None,
    prepared: Prepared | None = None,
) -> Path:
    """Run an experiment, or go on with one that was cut off, and return its run directory.

    Everything a user may have got wrong is found before the directory is made or changed.

    Args:
        config: What to run.
        console: Where to print.
        watchers: Told of every round after it has been recorded; what they raise ends the run.
        resume: The directory of the run to go on with; None: a new run.
        prepared: The clients, where another run has left them; they must fit `config`.

    Raises:
        UserError: If data, model or run directory are not as configured, or if it cannot be written.
    """
    clock = Clock()
    if resume is None:
        check_base(config)
    executor, hostile, notes = prepared or prepare(config)
    census = executor.join()
    check_demands(config, census)
    shards, who = open_shards(config.server)
    taken = take_over(config, census) if resume is None else None
    origin = Origin.of(config, census, taken and taken.earlier)
    if resume is None:
        folder = RunFolder.create(config, origin, taken and taken.beginning)
        notes = (*notes, *who, *(taken.lines if taken else ()))
    else:
        folder, notes = RunFolder(resume), (*notes, *who)
    del taken  # from now on the run's own files are read
    with folder.mine(), nullcontext() if shards is None else closing(shards):
        began = origin
        if resume is not None:
            began = folder.origin
            began.refuse(origin, saved_configuration(folder.path))
        with Display(console, config.tracking.progress) as display:
            main, *baselines = _standings(config, executor, census, hostile, folder, clock, display, shards)
            done = main.rounds_done
            folder.go_on(config, done, main.start.records if main.start else "")
            trackers = [*trackers_of(config, folder, census), *watchers]
            after = None if resume is None else done
            for line in opening(config, census, folder.path, after, notes, began.changed(origin)):
                display.line(line)
            asked = share_of(census.clients, config.participation)
            display.begin(config.name, config.rounds, asked, done)
            found = main.finish(record_rounds(config, census, folder, trackers, display))
            deliver(main, folder)
            describe(config, census, found, folder.path, begun=began.begun)
            others = {}
            for baseline in baselines:
                name = baseline.federation.method.name
                display.begin(name, config.rounds, asked, baseline.rounds_done)
                others[name] = baseline.finish(partial(_show, name, config, census, display))
                baseline.folder.checkpoints.prune(1)
            choices = None
            if config.client.guard == "validation":
                choices = let_choose(main, baselines, folder)
                describe(config, census, found, folder.path, choices, began.begun)
            # Sites keep what their clients chose, and of private clients it would tell what noise protects.
            told = None if private(config) else choices or None
        close(config, census, began, hostile, found, others, folder, clock(), trackers, console, told)
    return folder.path


def _standings(
    config: Config,
    executor: Executor,
    census: Census,
    hostile: frozenset[str],
    folder: RunFolder,
    clock: Clock,
    display: Display,
    shards: Shards | None,
) -> list[Standing]:
    """The method and the baselines, wherever they stand; all under the same conditions."""
    on_disk = config.server.on_disk
    # They share the first round, which is held in memory.
    if len(config.methods) > 1 and not private(config) and not on_disk:
        executor = FirstRoundMemo(executor, sealed(config))
    honest = frozenset(census.clients) - hostile if hostile else None
    away = config.participation.fraction < 1 or config.faults.lost > 0
    found = []
    for method in config.methods:
        is_main = method.name == config.name
        where = folder.method() if is_main else folder.baseline(method.name)
        federation = Federation(
            method,
            executor,
            config.seed,
            config.participation,
            config.evaluation.every if is_main else 0,
            config.evaluation.clients == "drawn",
            where.path / "memory",
            where.path if on_disk else None,
            config.server.memory_budget * 2**20,
            shards,
            display.client,
        )
        recorded = folder.recorded if is_main else str
        found.append(
            Standing(federation, config.rounds, where, clock, recorded, honest, away, folder.beginning)
        )
    return found


def _show(name: str, config: Config, census: Census, display: Display, result: RoundResult) -> None:
    """A baseline's round is shown, not recorded."""
    display.round(round_record(name, census.clients, result, census.metrics), config.rounds)
