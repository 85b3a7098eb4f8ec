"""Newcomers of finished runs: what is exact, what they get, and what is refused."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import fedpl
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.data import TextFiles
from fedpl.onboard import seat
from fedpl.onboard.__main__ import main
from fedpl.onboard.past import Past
from fedpl.onboard.tables import newcomers
from fedpl.records.newcomer import Newcomer
from fedpl.runs.folder import RunFolder
from fedpl.server.ondisk import PANELS
from tests.conftest import small_rows, write_csv

ALL = ("one-a", "two-a", "three-b")


@pytest.fixture(scope="module")
def config(small_run: list[str]) -> Config:
    """One by one, so that nobody's numbers depend on who trains beside."""
    found = read(make_parser("fit", ""), small_run)
    changes = {"client.cohort_size": 1, "client.lr": 1e-2, "baselines": [], "store_vectors": True}
    return with_changes(found, {**changes, "tracking.plots": False, "tracking.progress": False})


def table(folder: Path, *clients: str, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    return write_csv(folder / "rows.csv", small_rows(clients, **options))


def ended(config: Config, folder: Path, clients: tuple[str, ...], **changes: Any) -> fedpl.Run:
    """A run of these clients."""
    source = config.data
    assert isinstance(source, TextFiles)
    own = with_changes(config, {"data.paths": [str(table(folder, *clients))], **changes})
    return fedpl.run(own, run_dir=str(folder / "run"))


@pytest.fixture(scope="module")
def without(config: Config, tmp_path_factory: pytest.TempPathFactory) -> fedpl.Run:
    """A run without the third client."""
    return ended(config, tmp_path_factory.mktemp("without"), ALL[:2])


def aggregate(run: fedpl.Run, client: str) -> torch.Tensor:
    """The last θ̄ᵢ of a client in a run's state."""
    checkpoint = RunFolder(run.path).method().checkpoints.latest()
    assert checkpoint is not None
    return torch.tensor(np.asarray(checkpoint.state.personal)[run.clients.index(client)])


def same(one: Path, other: Path) -> bool:
    a, b = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_round_gives_what_the_run_with_the_newcomer_gives(config: Config, tmp_path: Path) -> None:
    """Bit for bit, with the residual of the frozen weights."""
    few = ended(config, tmp_path / "few", ("one-a", "three-b"), method="flora", rounds=1)
    all = ended(config, tmp_path / "all", ("one-a", "three-b", "two-a"), method="flora", rounds=1)
    (found,) = few.onboard(table(tmp_path / "new", "two-a"), columns={"split": "split"})
    where, wanted = few.path / "newcomers" / "two-a", all.path / "adapters" / "two-a"
    assert same(where, wanted)
    weights = all.weights().loc["two-a"].to_dict()
    assert found.weights == pytest.approx(weights)
    test = found.scores["test"]
    assert test.aggregated == all.summary.clients["two-a"].scores.aggregated
    assert test.floor == all.summary.clients["two-a"].scores.majority


def test_a_client_that_comes_again_with_its_own_data_is_what_it_was(
    without: fedpl.Run, tmp_path: Path
) -> None:
    """Through all rounds, in its own place."""
    (found,) = without.onboard(table(tmp_path / "new", "one-a"))
    assert found.update
    assert set(found.weights) == set(without.clients)
    assert same(without.path / "newcomers" / "one-a", without.path / "adapters" / "one-a")


def test_the_run_stays_what_it_was_and_goes_on_as_if_nothing_had_been(
    without: fedpl.Run, tmp_path: Path
) -> None:
    copies = [shutil.copytree(without.path, tmp_path / name) for name in ("joined", "untouched")]
    before = {p: p.read_bytes() for p in sorted(copies[0].rglob("*")) if p.is_file()}
    fedpl.Run.open(copies[0]).onboard(table(tmp_path / "new", "three-b"), rounds=1)
    assert {p: p.read_bytes() for p in before} == before
    joined, untouched = (fedpl.go_on(copy, rounds=3) for copy in copies)
    assert torch.equal(aggregate(joined, "one-a"), aggregate(untouched, "one-a"))
    assert joined.summary.test == untouched.summary.test


def test_the_command_on_several_newcomers(
    without: fedpl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = table(tmp_path / "new", "three-b", "two-a")
    assert main([str(without.path), "--data", str(data), "--start", "nearest", "--serve", "tuned"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "two-a (update)" in said
    assert "from its neighbours' last aggregates, through round 1" in said
    folder = without.path / "newcomers" / "three-b"
    found = Newcomer.read(folder)
    assert (found.start, found.served, found.rounds, found.update) == ("nearest", "tuned", 1, False)
    model = fedpl.load(without, "three-b", newcomer=True)
    rows = [
        row for row in csv.DictReader(data.open()) if row["client"] == "three-b" and row["split"] == "test"
    ]
    assert model.predict([]) == []
    answers = np.array(model.predict([row["text"] for row in rows]))
    assert np.mean(answers == [row["label"] for row in rows]) == found.scores["test"].tuned["accuracy"]
    page = (folder / "README.md").read_text()
    assert "newcomer=True" in page
    assert found.data in page
    # Each for itself: company changes nothing.
    (alone,) = without.onboard(table(tmp_path / "alone", "three-b"), start="nearest", serve="tuned")
    assert alone == found


def test_nearest_takes_over_the_others_last_aggregates(
    without: fedpl.Run, config: Config, tmp_path: Path
) -> None:
    changes = {"server.storage": "sharded"}
    for run in (without, ended(config, tmp_path / "sharded", ALL[:2], **changes)):
        (found,) = run.onboard(table(tmp_path / "new", "three-b"), start="nearest")
        own = {c: max(w, 0.0) for c, w in found.weights.items() if c != "three-b"}
        assert sum(own.values()) > 0
        saved = {c: load_file(run.path / "adapters" / c / "adapter_model.safetensors") for c in own}
        for name, tensor in load_file(run.path / "newcomers/three-b/adapter_model.safetensors").items():
            mean = sum(w * saved[c][name] for c, w in own.items()) / sum(own.values())
            torch.testing.assert_close(tensor, mean)


@pytest.mark.parametrize("job", ["flexlora", "fedbip_l"])
def test_nearest_in_parts_is_nearest_at_once(
    job: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ended(config, tmp_path, ALL[:2], method=job)
    found = []
    for many in (PANELS, 2**18):  # the second leaves room for 170 columns of a client
        monkeypatch.setattr(seat, "PANELS", many)
        run.onboard(table(tmp_path / "new", "three-b"), start="nearest")
        found.append(load_file(run.path / "newcomers/three-b/adapter_model.safetensors"))
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor)


@pytest.mark.parametrize(
    ("changes", "clients"),
    [
        (
            {
                "participation.fraction": 0.5,
                "aggregator.stale_discount": 0.5,
                "server.storage": "disk",
                "aggregator.granularity": "block",
            },
            ALL,
        ),
        ({"method": "ditto", "privacy.clip": 1.0, "aggregator.share": ["lora_A", "lora_B"]}, ALL[:1]),
    ],
    ids=["absent clients, on disk", "one client, personal models, own heads, privacy"],
)
def test_runs_of_every_kind(
    changes: dict[str, Any], clients: tuple[str, ...], config: Config, tmp_path: Path
) -> None:
    run = ended(config, tmp_path / "run", clients, **changes)
    for start in ("base", "nearest"):
        (found,) = run.onboard(table(tmp_path / "new", "new-a"), start=start)  # type: ignore[arg-type]
        assert sum(found.weights.values()) == pytest.approx(1, abs=1e-5)
        assert (found.epsilon is not None) == ("privacy.clip" in changes)
        personal = "method" in changes
        if personal:
            with pytest.raises(fedpl.UserError, match="use a personal model"):
                run.onboard(table(tmp_path / "new", "new-a"), serve="tuned")
        assert fedpl.load(run, "new-a", personal, newcomer=True).predict(["a good seat"])


def test_one_example_is_trained_and_not_scored(without: fedpl.Run, tmp_path: Path) -> None:
    row = {"text": "the crew was good", "label": "yes"}
    (found,) = without.onboard(write_csv(tmp_path / "tiny.csv", [row]))
    assert (found.client, found.examples, found.scores) == ("tiny", 1, {})


def test_newcomers_of_a_guarded_run_need_nothing_to_choose_by(config: Config, tmp_path: Path) -> None:
    run = ended(config, tmp_path / "run", ALL[:1], **{"client.guard": "validation", "rounds": 1})
    row = {"text": "the crew was good", "label": "yes"}
    (found,) = run.onboard(write_csv(tmp_path / "tiny.csv", [row]))
    assert (found.examples, found.scores) == (1, {})
    assert fedpl.load(run, "tiny", newcomer=True).predict(["a good seat"])


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [{"text": "a", "label": "maybe"}],
            {},
            r"'label' is 'maybe', which is none of the run's .*'no', 'yes'",
        ),
        ([{"text": "a", "label": ""}], {}, "has an empty 'label'"),
        ([{"words": "a", "label": "yes"}], {}, "no column 'text'"),
        ([{"words": "a", "label": "yes"}], {"columns": {"texts": "words"}}, "there is no 'texts'"),
        ([{"text": "a", "label": "yes"}], {"rounds": 3}, "from 1 to 2"),
    ],
)
def test_tables_that_are_refused(
    rows: list[dict[str, str]], options: dict[str, Any], message: str, without: fedpl.Run, tmp_path: Path
) -> None:
    with pytest.raises(fedpl.UserError, match=message):
        without.onboard(write_csv(tmp_path / "new.csv", rows), **options)


def test_partial_labels_and_a_name(without: fedpl.Run, tmp_path: Path) -> None:
    rows = [{"text": f"the {i} meal was good", "label": "yes"} for i in range(3)]
    past = Past.of(without.path)
    paths = [str(write_csv(tmp_path / "new.csv", rows))]
    data = newcomers(past.config, paths, past.summary.classes, "acme")
    assert (data.ids, data.classes) == (("acme",), ("no", "yes"))
    assert set(data.clients[0].train.labels) == {1}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("local", "exchange nothing"),
        ("ifca", "choose among several models"),
        ("true_groups", "is told which clients belong together"),
    ],
)
def test_methods_that_have_no_place_for_newcomers(method: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(Config.of(method).to_yaml())
    with pytest.raises(fedpl.UserError, match=message):
        fedpl.Run.open(tmp_path).onboard(table(tmp_path / "new", "new-a"))


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("summary.json", "is not finished: newcomers join a finished run; go on with"),
        ("vectors/round-0001.npy", "run it again with --store_vectors true"),
        ("vectors/round-0002.npy", "has task vectors of 1 rounds and a result of 2"),
    ],
)
def test_runs_that_are_refused(lost: str, message: str, without: fedpl.Run, tmp_path: Path) -> None:
    copy = shutil.copytree(without.path, tmp_path / "run", ignore=shutil.ignore_patterns("newcomers"))
    (copy / lost).unlink()
    with pytest.raises(fedpl.UserError, match=message):
        fedpl.Run.open(copy).onboard(table(tmp_path / "new", "new-a"))
    assert not (copy / "newcomers").exists()


def test_another_start_model_is_refused(without: fedpl.Run, tmp_path: Path) -> None:
    origin = without.path / "state" / "origin.json"
    before = origin.read_bytes()
    value = json.loads(before)
    try:
        origin.write_text(json.dumps({**value, "start": "0" * 32}))
        with pytest.raises(fedpl.UserError, match=r"numbers of the start model|is damaged"):
            without.onboard(table(tmp_path / "new", "new-a"))
    finally:
        origin.write_bytes(before)
