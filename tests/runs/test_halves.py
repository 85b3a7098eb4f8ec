"""Runs whose clients report on halves of their examples: who is asked, and what is done with the answers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import fedpl
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.errors import UserError
from fedpl.problems import check
from fedpl.records.rounds import read_rounds
from fedpl.replay.readings import Replayer
from fedpl.replay.recording import read_recording
from fedpl.runs.experiment import run
from fedpl.runs.folder import RunFolder
from fedpl.runs.hearing import opening
from fedpl.runs.prepared import prepare
from fedpl.server import Groups
from tests.conftest import small_rows, write_csv

QUIET = {"baselines": [], "tracking.plots": False, "tracking.progress": False, "store_vectors": True}


def of_three(clients: tuple[str, ...]) -> list[dict[str, str]]:
    """Sentences of three classes, whose heads are centred."""
    rows = small_rows(clients)
    return [row | ({"label": "maybe"} if i % 3 == 2 else {}) for i, row in enumerate(rows)]


@pytest.fixture
def config(small_run: list[str], tmp_path: Path) -> Config:
    table = write_csv(
        tmp_path / "of_three.csv", of_three(("one-a", "one-b", "two-a", "two-b", "three-a", "three-b"))
    )
    own = {"method": "fedbip_h", "client.lr": 1e-2, "aggregator.weighting.reports": 2, "rounds": 4}
    own["data.paths"] = [str(table)]
    return with_changes(read(make_parser("fit", ""), small_run), QUIET | own)


def ran(config: Config, folder: Path, **changes: Any) -> Path:
    return run(with_changes(config, {**changes, "run_dir": str(folder)}), Console(quiet=True))


def state(folder: Path) -> Any:
    checkpoint = RunFolder(folder).method().checkpoints.latest()
    assert checkpoint is not None
    return checkpoint


def told(folder: Path) -> list[tuple[float | None, ...] | None]:
    return [record.clients.halves for record in read_rounds(folder / "metrics.jsonl")]


def test_what_it_takes_is_said_first(config: Config) -> None:
    lines = list(opening(config, prepare(config).executor.join(), Path("x"), None))
    (said,) = [line for line in lines if "halves" in line]
    assert said.startswith("fedpl: fedbip_h: in its first 2 rounds a client trains on two halves")


def test_each_client_is_asked_so_many_times(config: Config, tmp_path: Path) -> None:
    folder = ran(config, tmp_path / "run", **{"participation.fraction": 0.67, "rounds": 6})
    ledger = state(folder).ledger
    assert (ledger.told == np.minimum(ledger.sent, 2)).all()
    assert ledger.sent.max() > 2
    last = told(folder)[-1]
    assert last is not None
    for value, expected in zip(last, ledger.agreement, strict=True):
        assert (np.isnan(expected) and value is None) or value == expected


def test_cut_off_and_replayed_it_is_the_same(config: Config, tmp_path: Path) -> None:
    whole = ran(config, tmp_path / "whole")
    part = ran(config, tmp_path / "part", rounds=1)
    run(config, Console(quiet=True), resume=part)
    one, other = state(whole), state(part)
    assert np.array_equal(one.state.personal, other.state.personal)
    assert all(np.array_equal(a, b) for a, b in zip(one.ledger, other.ledger, strict=True))
    assert told(whole) == told(part)
    assert told(whole)[1:] == [told(whole)[1]] * 3, "nobody is asked a third time"
    recording = read_recording(whole)
    assert Replayer(recording, prepare(recording.config)).error() == 0.0


def test_workers_report_too(config: Config, tmp_path: Path) -> None:
    lean = {"client.cohort_size": 1, "rounds": 2}
    here = ran(config, tmp_path / "here", **lean)
    spread = {"executor.kind": "processes", "executor.workers": 2, "executor.threads": 1}
    there = ran(config, tmp_path / "there", **lean, **spread)
    assert told(here) == told(there)
    assert np.array_equal(state(here).state.personal, state(there).state.personal)


def test_heads_are_centred_on_both_sides_and_on_disk(config: Config, tmp_path: Path) -> None:
    """What clients report and what the server compares; to the last bits of sums in another order."""
    here = ran(config, tmp_path / "here")
    there = ran(config, tmp_path / "there", **{"server.storage": "disk"})
    plain = ran(config, tmp_path / "plain", **{"aggregator.subject.centred": False})
    assert told(here)[0] == told(there)[0]
    rows = [np.asarray(each.state.models) for each in map(state, (here, there, plain))]
    assert rows[1] == pytest.approx(rows[0], abs=1e-4)
    assert np.abs(rows[2] - rows[0]).max() > 1e-3
    one, other = (np.array(told(folder)[0], float) for folder in (here, plain))
    assert np.abs(one - other).max() > 0.01


def test_beside_other_methods_nothing_changes(config: Config, tmp_path: Path) -> None:
    """Methods on the same clients share a first round, also with those whose clients are not asked."""
    alone = ran(config, tmp_path / "alone", rounds=2)
    beside = ran(config, tmp_path / "beside", rounds=2, baselines=["local", "fedbip"])
    assert told(alone) == told(beside)
    assert np.array_equal(state(alone).state.personal, state(beside).state.personal)
    fedbip = ran(config, tmp_path / "fedbip", rounds=2, method="fedbip", baselines=["fedbip_h"])
    assert told(fedbip) == [None, None]


def test_a_newcomer_reports_as_it_would_have_in_the_run(config: Config, tmp_path: Path) -> None:
    """One round, one by one: bit for bit what the run with it gives."""
    clients, lean = ("one-a", "two-a", "three-b"), {"client.cohort_size": 1, "rounds": 1}
    paths = [[str(write_csv(tmp_path / f"{len(few)}.csv", of_three(few)))] for few in (clients[:2], clients)]
    few, all = (
        ran(config, tmp_path / str(i), **lean, **{"data.paths": path}) for i, path in enumerate(paths)
    )
    table = write_csv(tmp_path / "new.csv", of_three(clients[2:]))
    (found,) = fedpl.Run(few).onboard(table)
    summary = json.loads((all / "summary.json").read_text())
    names = list(summary["clients"])
    assert found.weights == dict(zip(names, summary["weights"][names.index("three-b")], strict=True))


def test_other_runs_cannot_be_read_by_it(config: Config, tmp_path: Path) -> None:
    recording = read_recording(ran(config, tmp_path / "run", method="fedbip", rounds=1))
    player, rule = Replayer(recording, prepare(recording.config)), config.aggregator
    with pytest.raises(UserError, match="were not asked to"):
        player.final(rule)
    player.final(with_changes(config, {"aggregator.weighting": Groups()}).aggregator)


def test_what_clients_say_of_their_data_is_not_private(config: Config) -> None:
    with pytest.raises(UserError, match="what two halves of their data have in common, without noise"):
        check(with_changes(config, {"privacy.clip": 1.0}))
    with pytest.raises(UserError, match="clients of 'fedbip_h' say what"):
        check(with_changes(config, {"privacy.clip": 1.0, "method": "fedbip", "baselines": ["fedbip_h"]}))
    check(with_changes(config, {"privacy.clip": 1.0, "method": "fedbip_t"}))
