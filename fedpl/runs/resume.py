"""Going on with an interrupted run: the settings it was started with, and what may be changed."""

from pathlib import Path
from typing import Any

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.settings import flat, importing_nothing, plain

# What is recorded and shown has no influence on results; who trains has none beyond rounding, and an open
# round keeps its company.
_FREE = ("tracking.", "executor.", "server.shards", "server.address")


def saved_configuration(run_dir: Path) -> Config:
    """The configuration of a run.

    Raises:
        UserError: If the folder holds no run, or names code that is not imported from there.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{run_dir} holds no run (there is no config.yaml in it); name the directory that a run printed"
        )
    with importing_nothing(path):
        return Config.load(path)


def refuse_changes(
    saved: Config, asked: Config, what: str = "the run was started with other settings"
) -> None:
    """Compare the settings of a run with those asked for.

    More rounds may be asked for, unless learning rates depend on their number, ``tracking``, ``executor``
    and the server's shards may be anything; every other setting has shaped what is there.

    Args:
        saved: The run's.
        asked: Those asked for.
        what: What it means that they differ.

    Raises:
        UserError: Naming every other setting that differs.
    """
    fixed = saved.client.rates.needs_rounds
    changed = [
        f"{key} {before} → {now}" + (" with client.schedule_over: run" if key == "rounds" and fixed else "")
        for key, (before, now) in different(saved, asked).items()
        if not key.startswith(_FREE) and not (key == "rounds" and asked.rounds >= saved.rounds and not fixed)
    ]
    if changed:
        raise UserError(f"resume: {what} ({'; '.join(changed)}); leave them as they were, or start a new run")


def different(one: Config, other: Config) -> dict[str, tuple[str, str]]:
    """Settings in which two configurations differ, with both values in words; ``run_dir`` does not count."""
    before, now = (dict(flat(plain(config))) for config in (one, other))
    return {
        key: (_text(before, key), _text(now, key))
        for key in sorted(before.keys() | now.keys())
        if key != "run_dir" and before.get(key) != now.get(key)
    }


def _text(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "(not there)"
