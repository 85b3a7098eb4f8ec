"""The server's half of a run needs nothing of the clients but messages: sites in another process."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from fedpl.api import Run
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.data import TextFiles
from fedpl.executors.protocol import Executor
from fedpl.records.results import RunSeconds
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Prepared
from tests.executors.piped import Piped

JOBS: dict[str, dict[str, Any]] = {
    "fedbip_l": {"method": "fedbip_l", "baselines": ["local"]},
    "ditto": {"method": "ditto"},
    "ifca": {"method": "ifca"},
    "flora": {"method": "flora"},
    "private": {"privacy.clip": 1.0, "privacy.noise_multiplier": 0.1, "participation.fraction": 0.5},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(small_run: list[str]) -> Config:
    lean = {"baselines": [], "rounds": 2, "tracking.plots": False, "store_vectors": True}
    return with_changes(read(make_parser("fit", ""), small_run), lean)


@contextmanager
def piped(config: Config) -> Iterator[Piped]:
    executor = Piped(config)
    yield executor
    executor.close()


def result(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The scores of a run, and all its numbers."""
    found = Run.open(folder)
    numbers: dict[str, Any] = {path.name: np.load(path) for path in sorted(folder.glob("vectors/*.npy"))}
    for path in sorted(folder.glob("adapters/*/*.safetensors")):
        numbers |= {f"{path.parent.name}/{name}": value.numpy() for name, value in load_file(path).items()}
    summary = replace(found.summary, seconds=RunSeconds(train=0.0, aggregate=0.0, evaluate=0.0, total=0.0))
    return summary, numbers


@pytest.mark.parametrize("job", JOBS)
def test_sites_in_another_process_give_the_same_run(
    job: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_changes(config, JOBS[job])
    here = run(replace(config, run_dir=str(tmp_path / "here")), Console(quiet=True))

    def forbidden(*arguments: object) -> None:
        raise AssertionError("the server asked for the clients' data or their model")

    with piped(config) as executor, monkeypatch.context() as patch:
        assert isinstance(executor, Executor)
        patch.setattr(TextFiles, "load", forbidden)
        patch.setattr("fedpl.model.base.load_base", forbidden)
        patch.setattr("fedpl.model.pretrained.load_tokenizer", forbidden)
        there = run(
            replace(config, run_dir=str(tmp_path / "there")),
            Console(quiet=True),
            prepared=Prepared(executor),
        )
    one, other = result(here), result(there)
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    assert len(one[1]) > 10
    for name, numbers in one[1].items():
        np.testing.assert_array_equal(numbers, other[1][name], err_msg=name)


def test_nothing_crosses_but_what_the_records_say(config: Config, tmp_path: Path) -> None:
    """No text, no tokens, no labels, nothing of what a client keeps for itself."""
    config = with_changes(config, JOBS["ditto"] | {"run_dir": str(tmp_path / "run")})
    data = config.data.load(config.seed)
    with piped(config) as executor:
        run(config, Console(quiet=True), prepared=Prepared(executor))
        heard = executor.heard.getvalue()
    vectors = np.load(tmp_path / "run" / "vectors" / "round-0001.npy")
    assert vectors[0].tobytes() in heard, "what is looked for below would be found"
    encode = config.task.encoder(config.model)
    for client in data.clients:
        for split in (client.train, client.validation, client.test):
            assert not [text for text in split.texts if text.encode() in heard]
            for ids in encode(split).ids:
                assert not any(_as_bytes(ids.tolist(), kind) in heard for kind in (np.int64, np.int32))
            for kind in (np.int64, np.int32, np.int8):
                assert _as_bytes(split.labels, kind) not in heard
    kept = sorted((tmp_path / "run" / "state" / "memory").glob("*/*.safetensors"))
    assert len({path.parent for path in kept}) == len(data.clients)
    for path in kept:
        for value in load_file(path).values():
            assert value.numpy().tobytes() not in heard


def _as_bytes(values: Sequence[int], kind: type) -> bytes:
    return np.array(values, kind).tobytes()


def test_a_new_process_of_sites_goes_on_where_the_old_one_stood(config: Config, tmp_path: Path) -> None:
    """What clients remember is with their site's files, not in the server's checkpoint."""
    config = with_changes(config, JOBS["ditto"] | {"rounds": 3})
    through = run(replace(config, run_dir=str(tmp_path / "through")), Console(quiet=True))
    folder = tmp_path / "pieces"
    for rounds in (1, 2, 3):
        part = replace(config, rounds=rounds, run_dir=str(folder))
        with piped(part) as executor:
            resume = folder if rounds > 1 else None
            run(part, Console(quiet=True), resume=resume, prepared=Prepared(executor))
    one, other = result(through), result(folder)
    assert one[0].test == other[0].test
    for name, numbers in one[1].items():
        np.testing.assert_array_equal(numbers, other[1][name], err_msg=name)
