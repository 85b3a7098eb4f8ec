"""Going on with an interrupted run: the settings it was started with, and what may be changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fedpl.errors import UserError

_FREE = ("tracking.",)  # what is recorded and shown has no influence on results


def saved_configuration(run_dir: Path) -> str:
    """The resolved configuration of a run, as YAML.

    Raises:
        UserError: If the folder holds no run.
    """
    try:
        return (run_dir / "config.yaml").read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"resume: {run_dir} holds no run that can be gone on with (config.yaml: {error.strerror}); name "
            f"the run directory that the interrupted run printed"
        ) from error


def refuse_changes(saved: str, asked: str) -> None:
    """Compare the settings of a run with those asked for, both as YAML.

    More rounds may be asked for, and ``tracking`` may be anything; every other setting has shaped what is
    there.

    Raises:
        UserError: Naming every other setting that differs.
    """
    before, now = dict(flat(yaml.safe_load(saved))), dict(flat(yaml.safe_load(asked)))
    changed = [
        f"{key} {_text(before, key)} → {_text(now, key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not _allowed(key, before, now)
    ]
    if changed:
        raise UserError(
            f"resume: the run was started with other settings ({'; '.join(changed)}); leave them as they "
            f"were, or start a new run"
        )


def _allowed(key: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    return key.startswith(_FREE) or (key == "rounds" and now[key] >= before[key])


def _text(values: dict[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "(not there)"


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; the options of a class are named as on the command line."""
    if not isinstance(value, dict) or not value:
        yield prefix.rstrip("."), value
        return
    for key, item in value.items():
        yield from flat(item, prefix if key == "init_args" else f"{prefix}{key}.")
