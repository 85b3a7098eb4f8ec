"""A run at W&B is opened and ended: which mode, whose names, what an earlier process left behind."""

import netrc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from fedpl.config import WandbConfig
from fedpl.deferred import deferred
from fedpl.files import write_atomically

if TYPE_CHECKING:
    import psutil
    import wandb
else:
    psutil, wandb = map(deferred, ("psutil", "wandb"))

Mode = Literal["online", "offline", "disabled"]

# Quiet; rows soon at the server and at once on disk, where they survive a kill; no wait without an end.
_SETTINGS = {
    "silent": True,
    "init_timeout": 30,
    "finish_timeout": 60,
    "finish_timeout_raises": True,
    "x_file_stream_transmit_interval": 2,
    "x_transaction_log_flush_interval": 0.1,
}


def choose_mode(config: WandbConfig) -> Mode:
    """online, offline or disabled, without asking anybody.

    ``--tracking.wandb.mode`` wins over the environment's ``WANDB_MODE``, which wins over online when logged
    in and offline otherwise.
    """
    if config.mode != "auto":
        return config.mode
    # `dryrun` and `shared` are older and narrower names of the same.
    asked: dict[str, Mode] = {
        "online": "online",
        "shared": "online",
        "offline": "offline",
        "dryrun": "offline",
        "disabled": "disabled",
    }
    return asked.get(os.environ.get("WANDB_MODE", "")) or ("online" if logged_in() else "offline")


def logged_in() -> bool:
    """Whether a key for the W&B server lies in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if host and netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


# Runs that this process has begun, by id.
_ours: set[str] = set()


def asked_id() -> str | None:
    """The id in WANDB_RUN_ID. It is one run's: others of the same process have ids of their own."""
    asked = os.environ.get("WANDB_RUN_ID")
    return None if asked in _ours else asked or None


def open_run(
    config: WandbConfig, folder: Path, settings: dict[str, Any], id: str, **others: str
) -> tuple[Any, bool]:
    """The run with this id, and whether it is ours; else the user has opened it, and ends it.

    Args:
        config: Mode, project, names.
        folder: What it is about; W&B's own files go below it, or into WANDB_DIR.
        settings: What stands in the run's configuration at W&B.
        id: The run's; a run with this id is gone on with.
        others: Attributes of the run, as ``wandb.init`` takes them.
    """
    mode = choose_mode(config)
    if mode == "online" and not logged_in():
        warn("not logged in to W&B: recording offline")
        mode = "offline"
    options: dict[str, Any] = {
        "config": settings,
        # A run of a W&B sweep has its id from there.
        **({} if "WANDB_SWEEP_ID" in os.environ else {"id": id, "resume": "allow"}),
        "settings": wandb.Settings(**_not_in_environment(_SETTINGS)),
        **_names(config, folder),
        **others,
    }
    _end_leftover()
    owner = _owner(folder)
    owner.parent.mkdir(parents=True, exist_ok=True)
    _await_service(owner)
    own = wandb.run is None  # else init gives that
    try:
        run = wandb.init(mode=mode, **options)
    except wandb.errors.Error as error:
        warn(f"W&B is not available ({' '.join(str(error).split())}): recording offline")
        wandb.teardown(exit_code=1)  # else the id counts as in use
        run = wandb.init(mode="offline", **options)
    if own:
        _ours.add(run.id)
    write_atomically(owner, str(os.getpid()).encode())
    return run, own


def end_run(run: Any, folder: Path, code: int) -> None:
    """End a run of ours as finished (0) or failed."""
    if run.id in _ours:
        _finish(run, code)
    _owner(folder).unlink(missing_ok=True)


def where(run: Any) -> str:
    """Where a run is to be found, or how to upload it."""
    return f"wandb sync {_files(run)}" if run.offline else str(run.url)


def _owner(folder: Path) -> Path:
    """The file that names the process whose run it is."""
    return folder / "state" / "wandb-process"


def _end_leftover() -> None:
    """End as failed what a run that was broken off in this process left open, or the next would go on in it.

    A run that the user opened stays open, and is logged to.
    """
    left = wandb.run
    if left is not None and left.id in _ours:
        _finish(left, 1)


def _await_service(owner: Path) -> None:
    """Wait until the process in which W&B sends is gone, if the run's process was killed and it was not.

    It goes on sending rows, at places in the run that the next process would fill meanwhile: they would
    overwrite each other's. What it has not sent when its time is over, the next process sends.

    Args:
        owner: The file that names the run's last process, until that ends it.
    """
    if not owner.exists() or owner.read_text() == str(os.getpid()):
        return
    pid = owner.read_text()
    left = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "wandb-core" and pid in (process.info["cmdline"] or [])
    ]
    end = time.monotonic() + float(_SETTINGS["finish_timeout"])
    while left := [process for process in left if not _is_over(process)]:
        if time.monotonic() > end:
            for process in left:
                process.kill()
            return
        time.sleep(0.1)


def _is_over(process: Any) -> bool:
    """Whether a process has ended; where nobody asks for its code, as in containers, it stays a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _finish(run: Any, code: int) -> None:
    """End a run as finished (0) or failed, or say how to upload what a lost server has not taken."""
    try:
        run.finish(exit_code=code)
    except TimeoutError:
        warn(f"W&B has not taken everything; upload it with: wandb sync --include-online {_files(run)}")


def _files(run: Any) -> Path:
    """The run's files on this machine, as ``wandb sync`` takes them."""
    return Path(run.dir).parent


def _not_in_environment(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of W&B that the user has not set, as far as the installed version knows them."""
    known = wandb.Settings.model_fields
    return {
        name: value
        for name, value in settings.items()
        if name in known and f"WANDB_{name.removeprefix('x').upper()}" not in os.environ
    }


def _names(config: WandbConfig, folder: Path) -> dict[str, Any]:
    """Where the run belongs: settings that were given, then the environment's variables, then our own."""
    environment = os.environ.get
    given = config.project != WandbConfig().project
    return {
        "project": config.project if given else environment("WANDB_PROJECT", config.project),
        "name": config.name or environment("WANDB_NAME") or folder.name,
        "group": config.group or environment("WANDB_RUN_GROUP"),
        "tags": config.tags or [tag for tag in environment("WANDB_TAGS", "").split(",") if tag],
        "dir": environment("WANDB_DIR") or str(folder),
    }


def warn(message: str) -> None:
    """Say what W&B cannot do."""
    print(f"fedpl: {message}", file=sys.stderr)
