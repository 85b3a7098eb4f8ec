"""A server and three sites on loopback, by the commands of ``docs/howto/flower.md``, word for word."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "howto" / "flower.md"
SITES = {"north": 9101, "south": 9102, "west": 9103}  # with the port of each node
_BLOCK = re.compile(r"^<!-- ([a-z ]+) -->\n```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Federation:
    """What runs in a folder.

    Args:
        folder: A new one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "flower").symlink_to(sys.prefix)
        blocks = [text for _, text in _BLOCK.findall(PAGE.read_text(encoding="utf-8"))]
        self.everywhere, self.certificate, self.key, self.superlink, self.register = blocks[:5]
        self.tables, self.site, self.node, self.rounds = blocks[5:]
        self.staying: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, script: str, timeout: float = 900.0, **names: str) -> str:
        """What commands print, once they have ended."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self.everywhere}\n{script}"],
            cwd=self.folder,
            env=self._environment(names),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(f"{script}\n{done.stdout}")
        return done.stdout

    def stay(self, who: str, script: str, ready: str, **names: str) -> None:
        """Start a command that stays, and wait for a line in its log."""
        log = self.log(who)
        with log.open("ab") as file:
            begin = log.stat().st_size
            self.staying[who] = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", f"{self.everywhere}\n{script}"],
                cwd=self.folder,
                env=self._environment(names),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.wait(lambda: ready in log.read_bytes()[begin:].decode(errors="replace"), f"{who}: {ready}")

    def wait(self, holds: Callable[[], bool], what: str, timeout: float = 300.0) -> None:
        """Wait until something holds."""
        end = time.monotonic() + timeout
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(what)
            time.sleep(0.05)

    def kill(self, who: str) -> None:
        """SIGKILL for a command that stays and for all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.staying.pop(who).pid, signal.SIGKILL)

    def server_app(self) -> psutil.Process | None:
        """The process of the rounds."""
        if "superlink" not in self.staying:
            return None
        for child in psutil.Process(self.staying["superlink"].pid).children(recursive=True):
            with suppress(psutil.Error):
                if any("flwr-serverapp" in word for word in child.cmdline()):
                    return child
        return None

    def log(self, who: str) -> Path:
        return self.folder / f"{who}.log"

    def start_superlink(self) -> None:
        self.stay("superlink", self.superlink, "Uvicorn running")

    def start_site(self, name: str, more: str = "") -> None:
        """A site's own process.

        Args:
            name: Of the site.
            more: Words behind its command.
        """
        self.stay(f"{name} site", f"{self.site.rstrip()} {more}\n", "is at its door", SITE=name)

    def start_node(self, name: str) -> None:
        self.stay(f"{name} node", self.node, "SuperNode ID", SITE=name, PORT=str(SITES[name]))

    def flwr_run(self, run: str, more: str = "") -> str:
        """Rounds to their end, or to where they failed.

        Args:
            run: The run directory's name on the server.
            more: Words behind those for fedpl.
        """
        script = self.rounds.replace("/server/run'", f"/server/{run}'")
        return self.run(script.replace("--rounds 2", f"--rounds 2 {more}"))

    def _environment(self, names: Mapping[str, str]) -> dict[str, str]:
        known = {**os.environ, **names, "FEDPL": str(ROOT), "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        known.pop("PYTHONPATH", None)
        return known


@contextmanager
def federation(folder: Path) -> Iterator[Federation]:
    """All of the guide up to the rounds, and its end."""
    made = Federation(folder)
    try:
        made.run(made.certificate)
        for name in SITES:
            made.run(made.key, SITE=name)
        made.start_superlink()
        made.run(made.register)
        made.run(made.tables)
        for name in SITES:
            made.start_site(name)
            made.start_node(name)
        yield made
    finally:
        for who in tuple(made.staying):
            made.kill(who)
