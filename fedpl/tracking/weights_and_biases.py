"""A run in Weights & Biases: one run per federated run, one step per round, never a prompt."""

import netrc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from fedpl.config import WandbConfig
from fedpl.deferred import deferred
from fedpl.files import write_atomically
from fedpl.records.plain import encode, flat
from fedpl.records.results import RunSummary
from fedpl.records.rounds import RoundRecord
from fedpl.rounds.loop import RoundResult
from fedpl.tracking import closing, rows

if TYPE_CHECKING:
    import psutil
    import wandb
else:
    psutil, wandb = map(deferred, ("psutil", "wandb"))

Mode = Literal["online", "offline", "disabled"]

# Quiet; rows soon at the server and at once on disk, where they survive a kill; no wait without an end.
_SETTINGS = {
    "silent": True,
    "console": "off",
    "init_timeout": 30,
    "finish_timeout": 60,
    "finish_timeout_raises": True,
    "x_disable_stats": True,
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


class WandbTracker:
    """Logs each round and the summary; a round's row is on disk when the round ends.

    Args:
        config: Mode, project, names.
        folder: The run directory; W&B's own files go below it, or into WANDB_DIR.
        settings: What stands in the run's configuration at W&B.
        id: The W&B run's id; a run with this id is gone on with.
        earlier: Rounds that are done already; those that W&B lacks are logged at once.
        every: Matrices are shown every so many rounds.
    """

    def __init__(
        self,
        config: WandbConfig,
        folder: Path,
        settings: dict[str, Any],
        id: str,
        earlier: Sequence[RoundRecord] = (),
        every: int = 1,
    ) -> None:
        self.every = every
        self._config = config
        self._folder = folder
        mode = choose_mode(config)
        if mode == "online" and not logged_in():
            _warn("not logged in to W&B: recording offline")
            mode = "offline"
        options: dict[str, Any] = {
            "config": settings,
            # A run of a W&B sweep has its id from there.
            **({} if "WANDB_SWEEP_ID" in os.environ else {"id": id, "resume": "allow"}),
            "settings": wandb.Settings(**_not_in_environment(_SETTINGS)),
            **_names(config, folder),
        }
        _end_leftover()
        self._owner = folder / "state" / "wandb-process"
        self._owner.parent.mkdir(parents=True, exist_ok=True)
        _await_service(self._owner)
        self._own = wandb.run is None  # else the user has opened one, and init gives that
        try:
            self.run = wandb.init(mode=mode, **options)
        except wandb.errors.Error as error:
            _warn(f"W&B is not available ({' '.join(str(error).split())}): recording offline")
            wandb.teardown(exit_code=1)  # else the id counts as in use
            self.run = wandb.init(mode="offline", **options)
        if self._own:
            _ours.add(self.run.id)
        self._mark = folder / "state" / "wandb-round"
        write_atomically(self._owner, str(os.getpid()).encode())
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")
        # What a server has, it says; what files hold that are still to be uploaded, is kept beside them.
        self._logged = self._marked() if self.run.offline else self.run.starting_step - 1
        for record in earlier:
            self._log(record, {})

    @property
    def where(self) -> str:
        """Where the run is to be found, or how to upload it."""
        return f"wandb sync {_files(self.run)}" if self.run.offline else str(self.run.url)

    def round(self, record: RoundRecord, result: RoundResult) -> None:
        """Log a round's numbers and clients; now and then the matrices."""
        due = record.round == 1 or record.round % self.every == 0
        self._log(record, rows.matrices(record, result) if due else {})

    def _log(self, record: RoundRecord, shown: dict[str, Any]) -> None:
        """Log a round, unless an interrupted process did."""
        if record.round <= self._logged:
            return
        row = {**flat(record.to_json()), **rows.diagnostics(record.clients), "clients": rows.clients(record)}
        self.run.log(row | shown, step=record.round if self._own else None, commit=True)
        self._logged = record.round
        write_atomically(self._mark, str(record.round).encode())

    def _marked(self) -> int:
        """The last round that an earlier process logged."""
        return int(self._mark.read_text()) if self._mark.exists() else 0

    def finish(self, summary: RunSummary) -> None:
        """Write the closing scores and the comparison to the run's summary, and end the run."""
        own = flat({"test": encode(summary.test), "total_seconds": summary.seconds.total})
        self.run.summary.update(own | closing.comparison(summary))
        if self._config.artifacts:
            closing.keep(self.run, summary, self._folder)
        if self._config.alerts:
            closing.alert(self.run, summary)
        self._end(0)

    def close(self) -> None:
        """End the run as failed: what comes next in this process must not go on in it."""
        self._end(1)

    def _end(self, code: int) -> None:
        if self._own:
            _finish(self.run, code)
        self._owner.unlink(missing_ok=True)


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
    for process in psutil.wait_procs(left, timeout=_SETTINGS["finish_timeout"])[1]:
        process.kill()


def _finish(run: Any, code: int) -> None:
    """End a run as finished (0) or failed, or say how to upload what a lost server has not taken."""
    try:
        run.finish(exit_code=code)
    except TimeoutError:
        _warn(f"W&B has not taken everything; upload it with: wandb sync --include-online {_files(run)}")


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


def _warn(message: str) -> None:
    print(f"fedpl: {message}", file=sys.stderr)
