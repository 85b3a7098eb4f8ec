"""Completion in the shell: a real bash, into which words and tabs are typed."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

argcomplete = pytest.importorskip("argcomplete")

ROOT = Path(__file__).parents[1]
PATIENCE = 60  # seconds for an answer on a busy machine


class Bash:
    """An interactive bash at the other end of a terminal."""

    def __init__(self, folder: Path) -> None:
        self.mine, theirs = pty.openpty()
        roots = [str(ROOT), str(ROOT / "kernels"), str(Path(argcomplete.__file__).parents[1])]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("COV")},
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(roots),
            "TERM": "dumb",
            "PS1": "READY ",
            "INPUTRC": "/dev/null",
            "COLUMNS": "200",
        }
        self.process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.said = ""

    def type(self, keys: str, until: str) -> str:
        """Type, and read until this has been said."""
        self.said = ""
        os.write(self.mine, keys.encode())
        end = time.monotonic() + PATIENCE
        while until not in self.said:
            left = end - time.monotonic()
            assert left > 0, f"typed {keys!r}, waited for {until!r}, read {self.said!r}"
            if select.select([self.mine], [], [], left)[0]:
                self.said += os.read(self.mine, 65536).decode(errors="replace")
        return self.said

    def tab(self, line: str, until: str) -> str:
        """Complete a line, and take it back."""
        try:
            return self.type(f"{line}\t", until)
        finally:
            self.type("\x15echo done\n", "done\r\n")


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    folder = tmp_path_factory.mktemp("completion")
    for name, words in (("fedpl", "-m fedpl"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} {words} "$@"\n')
        script.chmod(0o755)
    (folder / "register").write_text(argcomplete.shellcode(["fedpl"], shell="bash"))
    found = Bash(folder)
    everywhere = Path(argcomplete.__file__).parent / "bash_completion.d" / "_python-argcomplete"
    found.type(f"source register; source {everywhere}; echo so''urced\n", "sourced\r\n")
    yield found
    os.close(found.mine)
    found.process.wait(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("fedpl onb", "fedpl onboard "),
        ("fedpl fit --client.weight_d", "fedpl fit --client.weight_decay "),
        ("fedpl fit --client.optimizer s", "fedpl fit --client.optimizer sgd "),
        ("fedpl fit --aggregator.weighting Soft", "fedpl fit --aggregator.weighting Softmax "),
        ("fedpl fit --store_vectors t", "fedpl fit --store_vectors true "),
        ("fedpl fit --method fedbip_r", "fedpl fit --method fedbip_robust "),
        ("fedpl fit --config text_f", "fedpl fit --config text_files "),
        ("fedpl compare --methods local,fedbip_r", "fedpl compare --methods local,fedbip_robust "),
        ("fedpl compare --client.weight_d", "fedpl compare --client.weight_decay "),
        ("fedpl replay runs/a --read", "fedpl replay runs/a --reading "),
        ("fedpl sweep server_g", "fedpl sweep server_grid "),
        ("fedpl onboard runs/a --start ne", "fedpl onboard runs/a --start nearest "),
        ("python -m fedpl.fit --client.weight_d", "python -m fedpl.fit --client.weight_decay "),
        ("python -m fedpl onboard runs/a --start ne", "python -m fedpl onboard runs/a --start nearest "),
        ("python -m fedpl.sweep rank_b", "python -m fedpl.sweep rank_bytes "),
        ("python -m fedpl.export runs/a --mer", "python -m fedpl.export runs/a --merge "),
    ],
)
def test_a_tab_completes(bash: Bash, typed: str, completed: str) -> None:
    assert completed in bash.tab(typed, completed)


def test_two_tabs_list_the_choices(bash: Bash) -> None:
    said = bash.tab("fedpl replay runs/a --reading \t", "one_step")
    assert {"both", "chain", "one_step"} <= set(said.split())


def test_a_setting_without_choices_completes_to_nothing(bash: Bash) -> None:
    bash.type("fedpl fit --client.lr \t\t", "--client.lr ")
    assert "Traceback" not in bash.type("\x15echo done\n", "done\r\n")
