"""The files of a run directory."""

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.files import held, make_folder, move, quoted, write_atomically, writing
from fedpl.problems import occupied
from fedpl.records.results import MethodResult
from fedpl.records.rounds import RoundRecord, read_rounds
from fedpl.rounds.checkpoints import Checkpoints
from fedpl.rounds.journal import Journal
from fedpl.runs.beginning import Beginning
from fedpl.runs.given import START
from fedpl.runs.origin import Origin


@dataclass(frozen=True)
class MethodFolder:
    """Where a method of a run stands."""

    path: Path

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """One for all who ask: it knows what is on disk already."""
        return Checkpoints(self.path)

    @property
    def journal(self) -> Journal:
        return Journal(self.path / "open")

    def write_result(self, result: MethodResult) -> None:
        """Keep what the summary says about the method."""
        result.write(self.path)

    def result(self, rounds: int) -> MethodResult | None:
        """What was kept after so many rounds, or None."""
        try:
            result = MethodResult.read(self.path)
        except UserError:
            return None
        return result if result.rounds == rounds else None


@dataclass(frozen=True)
class RunFolder:
    """The files of a run directory."""

    path: Path

    @classmethod
    def create(cls, config: Config, origin: Origin, beginning: Beginning | None = None) -> "RunFolder":
        """Make the directory with its ``config.yaml``; without a name, a new one under ``runs/``.

        A new one appears under its name complete: a run that is there can be gone on with. An empty one may
        be the working directory, a mount point or a link: it stays, and the configuration goes into it.

        Args:
            config: The configuration.
            origin: What the run begins with.
            beginning: The models of it, where that is not θ₀ for all.

        Raises:
            UserError: If it cannot be made or already holds something.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        name = config.run_dir or f"runs/{stamp}-{config.name}-s{config.seed}"
        path = Path(name)
        attempt = 1
        while config.run_dir is None and path.exists():
            attempt += 1
            path = Path(f"{name}-{attempt}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                cls(path)._settle(config, origin, beginning)
                return cls(path)
            new = path.with_name(f".{path.name}.part")
            if new.exists():
                shutil.rmtree(new)
            new.mkdir()
            make_folder(new / "state")
            _write(origin, beginning, new / "state")
            write_atomically(new / "config.yaml", _again(config).encode())
            move(new, path)
        except OSError as error:
            raise UserError(f"run_dir: cannot make {path}: {error.strerror}") from error
        return cls(path)

    def _settle(self, config: Config, origin: Origin, beginning: Beginning | None) -> None:
        """Make an empty folder that of a run; the configuration comes last, as it makes it one."""
        with held(self.path):
            if occupied(self.path):
                raise UserError(
                    f"run_dir: {self.path} already holds another run or other files; name a new folder, or "
                    f"go on with an interrupted run by --resume {self.path}"
                )
            _write(origin, beginning, self.sub("state"))
            write_atomically(self.path / "config.yaml", _again(config).encode())

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Within it no other process works on the run, and an interruption says how to go on.

        Raises:
            UserError: If another process does, or if the directory is removed meanwhile.
        """
        with held(self.path):
            try:
                yield
            except BaseException as cause:
                if not isinstance(cause, Exception):  # an interruption
                    cause.add_note(f"go on with: python -m fedpl.fit --resume {self.path}")
                elif self._gone():
                    raise self._removed() from cause
                raise
            if self._gone():
                raise self._removed()

    def _gone(self) -> bool:
        return not (self.path / "config.yaml").is_file()

    def _removed(self) -> UserError:
        return UserError(
            f"{self.path} was removed while the run was going on (there is no config.yaml in it any more), "
            f"and what it held with it; start the run again"
        )

    def adapter(self, client: str, kind: str = "adapters") -> Path:
        """Where a client's adapter lies; the id is quoted so that it cannot lead elsewhere.

        Args:
            client: Its id.
            kind: adapters or personal.
        """
        return self.path / kind / quoted(client)

    def sub(self, name: str) -> Path:
        """A folder below this one, made if need be."""
        folder = self.path / name
        with writing(folder):
            make_folder(folder)
        return folder

    def method(self) -> MethodFolder:
        """Where the method itself stands."""
        return MethodFolder(self.sub("state"))

    def baseline(self, name: str) -> MethodFolder:
        """Where a baseline stands."""
        self.sub("state")
        return MethodFolder(self.sub(f"state/baseline-{name}"))

    @property
    def knows_origin(self) -> bool:
        """Whether it says what it began with; earlier versions did not."""
        return (self.path / "state" / Origin.FILE).exists()

    @property
    def origin(self) -> Origin:
        """What the run began with.

        Raises:
            UserError: If it is not there or damaged.
        """
        return Origin.read(self.path / "state")

    def beginning(self) -> Beginning | None:
        """The models that the run began with, from its own files; None: θ₀ for all.

        Raises:
            UserError: If they are no longer there.
        """
        begun = self.origin.begun if self.knows_origin else None
        return None if begun is None else Beginning.read(self.path / START, begun.digest)

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def recorded(self) -> str:
        """Digest of what has been recorded of the rounds so far."""
        return _digest(self.metrics.read_bytes()) if self.metrics.exists() else ""

    def cut_metrics(self, rounds: int, digest: str) -> None:
        """Drop what was recorded of rounds after the state, so that no round is there twice.

        Args:
            rounds: Of the state.
            digest: Of what had been recorded when it was written.

        Raises:
            UserError: If a round before the state is missing, or was changed since.
        """
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else []
        kept = lines[:rounds]
        try:
            found = [json.loads(line)["round"] for line in kept]
        except (ValueError, KeyError, TypeError):
            found = []
        if found != list(range(1, rounds + 1)) or not all(line.endswith(b"\n") for line in kept):
            raise UserError(
                f"resume: {self.metrics} does not hold the rounds 1 to {rounds} of the state beside it, one "
                f"a line; the run cannot be gone on with"
            )
        if rounds and _digest(b"".join(kept)) != digest:
            raise UserError(
                f"resume: {self.metrics} was changed after it was written: the rounds in it are no longer "
                f"those of the state beside it; put it back, or start a new run"
            )
        if len(kept) < len(lines):
            write_atomically(self.metrics, b"".join(kept))

    def go_on(self, config: Config, rounds: int, digest: str) -> None:
        """Make the directory that of a run which stands after so many rounds, under these settings.

        A run with a summary is finished: one of fewer rounds is dropped.

        Args:
            config: The settings.
            rounds: How many are done.
            digest: As of `cut_metrics`.

        Raises:
            UserError: If a round before the state is missing, or was changed since.
        """
        self.cut_metrics(rounds, digest)
        if rounds < config.rounds:
            path = self.path / "summary.json"
            with writing(path):
                path.unlink(missing_ok=True)
        write_atomically(self.path / "config.yaml", _again(config).encode())

    def records(self) -> tuple[RoundRecord, ...]:
        """All rounds recorded so far."""
        return read_rounds(self.metrics)

    def wandb_id(self) -> str:
        """The id of the W&B run, made and kept when it is first asked for."""
        path = self.sub("state") / "wandb-id"
        if not path.exists():
            write_atomically(path, secrets.token_hex(4).encode())
        return path.read_text().strip()


def _write(origin: Origin, beginning: Beginning | None, state: Path) -> None:
    if beginning is not None:
        beginning.write(state / Path(START).name)
    origin.write(state)


def _again(config: Config) -> str:
    """A configuration as YAML that can be run again as it is: in a directory of its own."""
    return replace(config, run_dir=None).to_yaml()


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
