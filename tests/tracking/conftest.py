"""The real wandb, and a server for it on the loopback address."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

from tests.tracking.wandb_stub import Stub

ROOT = Path(__file__).parents[2]


def end_process() -> None:
    """What wandb does when a process ends with an error."""
    wandb.finish(exit_code=1)
    wandb.teardown(exit_code=1)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nobody is logged in and nothing is asked for; wandb reads its variables anew."""
    wandb.teardown()  # first: it takes its own variable out of the environment
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    end_process()


@pytest.fixture
def server(stranger: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """A server that the environment leads to, that of processes which are started too."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'kernels'}")
    with Stub() as stub:
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        yield stub
        end_process()  # while there is a server
        assert list(stub.unknown) == []
