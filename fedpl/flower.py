"""The rounds in a ServerApp of Flower: data and model stay at the sites. Needs the extra ``flower``."""

import secrets
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.executors.joining import Pins
from fedpl.executors.nodes import Grid, Nodes, gather
from fedpl.executors.sites import Sites
from fedpl.problems import check
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Prepared
from fedpl.runs.resume import refuse_changes, saved_configuration
from fedpl.runs.sharing import agreed, shifts


def serve(grid: Grid, settings: Mapping[str, Any]) -> Path:
    """Run an experiment with the clients of all connected nodes, or go on with it; its directory.

    Args:
        grid: The way to the nodes.
        settings: Of ``flwr run``: ``fedpl``, the words of a command line of ``python -m fedpl.fit``, and
            ``run-dir``, where the run is written; if it holds one, that is gone on with.

    Raises:
        UserError: If a setting does not fit, or a site is not what the others are.
    """
    folder = Path(str(settings["run-dir"])).expanduser()
    if not folder.is_absolute():
        raise UserError(f"run-dir: expected an absolute path on the server, got '{folder}'")
    going_on = (folder / "config.yaml").is_file()
    config = _configuration(str(settings["fedpl"]), folder, going_on)
    sites = _sites(config, grid, folder)
    resume = folder if going_on else None
    return run(config, Console(), resume=resume, prepared=Prepared(sites, notes=sites.notes))


def _configuration(words: str, folder: Path, going_on: bool) -> Config:
    parser = make_parser("flwr run", "")
    saved = saved_configuration(folder) if going_on else None
    config = read(parser, shlex.split(words), saved)
    if config.executor.kind != "flower":
        raise UserError(f"executor.kind: flower in a ServerApp, got {config.executor.kind}")
    if config.faults.hostile:
        raise UserError("faults.hostile: attackers are simulated in one process, not at sites; leave it out")
    if saved is not None:
        refuse_changes(saved, config)
        return config
    config = replace(config, run_dir=str(folder))
    check(config)
    return config


def _sites(config: Config, grid: Grid, folder: Path) -> Sites:
    path, chosen = folder / "state" / "sites.json", config.executor
    known = Pins.read(path)
    nodes = gather(grid, chosen.workers, () if known is None else known.keys, chosen.timeout)
    keys = tuple(node.key for node in nodes)
    pins = known or Pins(f"{folder.name}-{secrets.token_hex(4)}", keys, path)
    return Sites(Nodes(grid, nodes), agreed(config), shifts(config), pins, chosen.retries, chosen.timeout)
