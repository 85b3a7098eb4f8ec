"""The files of a run directory."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.files import held, make_folder, move, quoted, write_atomically, writing
from fedpl.records.results import MethodResult
from fedpl.records.rounds import RoundRecord, read_rounds
from fedpl.rounds.checkpoints import Checkpoints
from fedpl.rounds.journal import Journal


@dataclass(frozen=True)
class MethodFolder:
    """Where a method of a run stands."""

    path: Path

    @property
    def checkpoints(self) -> Checkpoints:
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
    def create(cls, config: Config) -> "RunFolder":
        """Make the directory with its ``config.yaml``; without a name, a new one under ``runs/``.

        It appears under its name complete: a run that is there can be gone on with.

        Args:
            config: The configuration.

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
            if path.exists() and any(path.iterdir()):
                raise UserError(
                    f"run_dir: {path} already holds another run or other files; name a new folder, or go on "
                    f"with an interrupted run by --resume {path}"
                )
            new = path.with_name(f".{path.name}.part")
            if new.exists():
                shutil.rmtree(new)
            new.mkdir()
            write_atomically(new / "config.yaml", _again(config).encode())
            move(new, path)
        except OSError as error:
            raise UserError(f"run_dir: cannot make {path}: {error.strerror}") from error
        return cls(path)

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Within it no other process works on the run, and an interruption says how to go on.

        Raises:
            UserError: If another process does.
        """
        with held(self.path):
            try:
                yield
            except BaseException as cause:
                if not isinstance(cause, Exception):  # an interruption
                    cause.add_note(f"go on with: python -m fedpl.fit --resume {self.path}")
                raise

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
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def cut_metrics(self, rounds: int) -> None:
        """Drop what was recorded of rounds after the state, so that no round is there twice.

        Raises:
            UserError: If a round before the state is missing.
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
        if len(kept) < len(lines):
            write_atomically(self.metrics, b"".join(kept))

    def go_on(self, config: Config, rounds: int) -> None:
        """Make the directory that of a run which stands after so many rounds, under these settings.

        A run with a summary is finished: one of fewer rounds is dropped.

        Raises:
            UserError: If a round before the state is missing.
        """
        self.cut_metrics(rounds)
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


def _again(config: Config) -> str:
    """A configuration as YAML that can be run again as it is: in a directory of its own."""
    return replace(config, run_dir=None).to_yaml()
