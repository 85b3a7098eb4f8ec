"""Replays on a small model and a small table: what is exact, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from fedpl.errors import UserError
from fedpl.fit import main as fit
from fedpl.interop import borrow
from fedpl.records.scores import summarise
from fedpl.replay.__main__ import main
from fedpl.replay.plan import rules
from fedpl.replay.readings import Replayer
from fedpl.replay.recording import read_recording
from fedpl.replay.report import Reading, SplitScores, write_replay
from fedpl.runs.folder import RunFolder
from fedpl.runs.prepared import Prepared, prepare
from fedpl.server import Aggregator, FedBip, Uniform
from fedpl.sweep.__main__ import main as sweep
from fedpl.tracking.vectors import read_vectors, store_vectors, stored_rounds
from tests.made_up import REGRESSION, scores

OTHER = ["--aggregator.granularity=block", "--aggregator.server_lr=0.7"]


@pytest.fixture(scope="module")
def arguments(small_run: list[str]) -> list[str]:
    return [
        *small_run,
        "--client.lr=1e-2",
        "--baselines=[]",
        "--tracking.plots=false",
        "--store_vectors=true",
    ]


def run(folder: Path, *arguments: str) -> Path:
    fit([f"--run_dir={folder}", *arguments])
    return folder


@pytest.fixture(scope="module")
def recorded(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "recorded", *arguments, "--rounds=3")


@pytest.fixture(scope="module")
def replayer(recorded: Path) -> Replayer:
    recording = read_recording(recorded)
    return Replayer(recording, prepare(recording.config))


def personal(folder: Path) -> np.ndarray:
    checkpoint = RunFolder(folder).method().checkpoints.latest()
    assert checkpoint is not None
    return np.asarray(checkpoint.state.personal)


def test_the_recorded_rule_gives_the_recorded_state(replayer: Replayer) -> None:
    assert replayer.error() == 0.0


def test_round_one_under_another_rule_is_what_training_under_it_gives(
    replayer: Replayer, arguments: list[str], tmp_path: Path
) -> None:
    other = run(tmp_path / "run", *arguments, *OTHER, "--rounds=1")
    (rule,) = rules(replayer.recording, None, OTHER).values()
    for state in (next(replayer.chain(rule)), replayer.one_step(rule, 1)):
        np.testing.assert_array_equal(np.asarray(state.personal), personal(other))


def test_one_step_starts_from_the_recorded_aggregates(replayer: Replayer) -> None:
    """θ̄ of round 3 is the recorded θ̄ of round 2 plus what the new rule makes of the recorded τ."""
    before = list(np.array(s.personal) for s in replayer.chain(replayer.recording.config.aggregator))
    tau = read_vectors(replayer.recording.rounds[2])
    found = np.asarray(replayer.one_step(Aggregator(weighting=Uniform(), server_lr=0.5), 3).personal)
    np.testing.assert_allclose(found, before[1] + 0.5 * tau.mean(0), atol=1e-6)
    own = np.asarray(replayer.one_step(replayer.recording.config.aggregator, 3).personal)
    np.testing.assert_array_equal(own, before[2])


def test_chains_do_not_disturb_each_other(replayer: Replayer) -> None:
    rule = Aggregator(weighting=FedBip(negatives="clip"))
    first = np.array(replayer.final(rule).personal)
    replayer.one_step(Aggregator(weighting=Uniform()), 2)
    np.testing.assert_array_equal(np.asarray(replayer.final(rule).personal), first)


def test_scores_are_those_of_the_run(replayer: Replayer) -> None:
    summary = json.loads((replayer.recording.folder / "summary.json").read_text())
    state = replayer.final(replayer.recording.config.aggregator)
    for client, own in replayer.score(state, "test").items():
        assert own == summary["clients"][client]["aggregated"]


def test_the_command_prints_a_table_and_writes_json(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(recorded), "--test", *OTHER]) == 0
    printed = capsys.readouterr().out
    for words in ("recorded", "chain", "one step", "the same, bit for bit", "only round 1 is what training"):
        assert words in " ".join(printed.split())
    (path,) = (recorded / "replays").glob("*.json")
    readings = json.loads(path.read_text())["readings"]
    assert [(r["rule"], r["reading"], r["round"]) for r in readings] == [
        ("fedbip", "recorded", 3),
        ("as given", "chain", 3),
        ("as given", "one step", 3),
    ]
    metrics = [json.loads(line) for line in (recorded / "metrics.jsonl").read_text().splitlines()]
    for split in ("validation", "test"):
        assert readings[0][split]["mean"] == metrics[-1][split]["aggregated"]["mean"]


def test_several_methods_in_one_reading_of_one_round(recorded: Path) -> None:
    main([str(recorded), "--methods=local,fedavg", "--reading=one_step", "--round=2"])
    latest = sorted((recorded / "replays").glob("*.json"))[-1]
    readings = json.loads(latest.read_text())["readings"]
    assert [(r["rule"], r["reading"], r["round"]) for r in readings[1:]] == [
        ("local", "one step", 2),
        ("fedavg", "one step", 2),
    ]
    assert "test" not in readings[0]


def test_a_sweep_over_the_server_trains_nothing(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpl.training.worker.Worker.fit", lambda *_: pytest.fail("trained"))
    parameters = {
        "aggregator.server_lr": {"values": [1.0, 0.5]},
        "aggregator.weighting.floor": {"value": 0.3},
    }
    metric = {"name": "validation/aggregated/mean/accuracy", "goal": "maximize"}
    command = ["-m", "fedpl.fit", "--config=nowhere.yaml", "--aggregator.granularity=block", "${args}"]
    content = {"method": "grid", "metric": metric, "command": command, "parameters": parameters}
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    assert sweep([str(file), f"--replay={recorded}", f"--out={out}"]) == 0
    trials = json.loads((out / "sweep.json").read_text())["trials"]
    assert {trial["parameters"]["aggregator.server_lr"] for trial in trials} == {1.0, 0.5}
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["aggregator"]["granularity"] == "block"
    assert best["aggregator"]["weighting"]["init_args"]["floor"] == 0.3
    assert best["rounds"] == 3
    recording = read_recording(recorded)
    (rule,) = rules(
        recording, None, ["--aggregator.granularity=block", "--aggregator.weighting.floor=0.3"]
    ).values()
    player = Replayer(recording, prepare(recording.config))
    scores = player.score(player.final(rule), "validation").values()
    (whole,) = [t["value"] for t in trials if t["parameters"]["aggregator.server_lr"] == 1.0]
    assert whole == pytest.approx(sum(s["accuracy"] for s in scores) / 3)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--client.lr=0.5"], "client: a replay trains nothing"),
        (["--rounds=2"], "rounds: a replay trains nothing"),
        (["--aggregator.server_lr=-1"], "server_lr: must be positive"),
        (["--round=4"], "from 1 to 3"),
        (["--methods=fedbib"], "did you mean 'fedbip'"),
        (["--reading=all"], "invalid choice"),
    ],
)
def test_what_is_refused(extra: list[str], message: str, recorded: Path) -> None:
    with pytest.raises(UserError, match=message):
        main([str(recorded), *extra])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((2, 5), np.float32),
            r"round-0002\.npy: expected .* of 3 clients with \d+ .*got float32 \(2, 5\)",
        ),
        (np.zeros(7, np.float32), r"got float32 \(7,\)"),
        (np.zeros((), np.float32), r"got float32 \(\)"),
        ("same shape, integers", r"expected .*float32 .*got int64 \(3, "),
        (np.array([{"a": 1}]), "round-0002.npy holds no task vectors written by fedpl"),
        (None, "round-0002.npy holds no task vectors written by fedpl"),
        ("several arrays", "round-0002.npy holds no task vectors written by fedpl"),
    ],
)
def test_vectors_of_another_run(values: Any, message: str, replayer: Replayer, tmp_path: Path) -> None:
    path = tmp_path / "round-0002.npy"
    if values is None:
        path.write_bytes(b"nothing")
    elif isinstance(values, str):
        right = read_vectors(replayer.recording.rounds[1])
        with path.open("wb") as file:
            np.save(file, right.astype(int)) if "integers" in values else np.savez(file, a=right, b=right)
    else:
        np.save(path, values, allow_pickle=True)
    recording = replayer.recording
    damaged = recording._replace(rounds=(recording.rounds[0], path, recording.rounds[2]))
    with pytest.raises(UserError, match=message):
        Replayer(damaged, Prepared(replayer.executor))


def test_a_run_without_task_vectors(arguments: list[str], tmp_path: Path) -> None:
    folder = run(tmp_path / "run", *arguments, "--rounds=1", "--store_vectors=false")
    with pytest.raises(UserError, match="run it again with --store_vectors true"):
        main([str(folder)])
    with pytest.raises(UserError, match="holds no run"):
        main([str(tmp_path / "nowhere")])


def test_half_precision_takes_half_the_space_and_is_near(
    recorded: Path, arguments: list[str], tmp_path: Path
) -> None:
    folder = run(tmp_path / "run", *arguments, "--rounds=3", "--store_vectors=bf16")
    exact, near = (stored_rounds(path / "vectors") for path in (recorded, folder))
    assert list(exact) == list(near) == [1, 2, 3]
    assert near[1].stat().st_size < 0.55 * exact[1].stat().st_size
    a, b = read_vectors(exact[1]), read_vectors(near[1])
    assert b.dtype == np.float32
    assert not np.array_equal(a, b)
    np.testing.assert_allclose(b, a, rtol=2**-8, atol=0)
    recording = read_recording(folder)
    error = Replayer(recording, prepare(recording.config)).error()
    assert error is not None
    assert 0 < error < 0.01


def test_stored_vectors_come_back_as_they_were(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    store_vectors(tmp_path, 7, matrix, matrix.shape, True)
    ((round, path),) = stored_rounds(tmp_path).items()
    assert round == 7
    np.testing.assert_array_equal(read_vectors(path), matrix, strict=True)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="holds no task vectors"):
        read_vectors(path)


def test_half_precision_rounds_as_torch_does(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2**32, size=(2, 10_000), dtype=np.uint32).view(np.float32)
    values[~np.isfinite(values)] = np.inf
    store_vectors(tmp_path, 1, values, values.shape, "bf16")
    (path,) = stored_rounds(tmp_path).values()
    expected = torch.from_numpy(values).to(torch.bfloat16)
    np.testing.assert_array_equal(np.load(path), expected.view(torch.uint16).numpy())
    np.testing.assert_array_equal(read_vectors(path), expected.float().numpy())


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ("false", False), ("f32", "f32"), ("bf16", "bf16")]
)
def test_ways_to_store(word: str, value: Any) -> None:
    from fedpl.cli import make_parser, read

    assert read(make_parser("fit", ""), [f"--store_vectors={word}"]).store_vectors == value


def test_the_score_sees_the_replayed_aggregates(replayer: Replayer) -> None:
    """Scoring borrows the state: what it reads is the chain's own last state."""
    state = replayer.final(Aggregator(weighting=Uniform()))
    view = borrow(state.personal, replayer.census.initial)
    assert torch.allclose(view[0], view[1])


@pytest.mark.parametrize(
    "conditions",
    [
        ["--participation.fraction=0.5", "--aggregator.stale_discount=0.5"],
        ["--config=configs/method/flora.yaml"],
        ["--config=configs/method/fedbip_w.yaml"],
    ],
    ids=["absent clients", "shifted base weights", "a rule with a memory"],
)
def test_runs_of_every_kind_are_repeated_exactly(
    conditions: list[str], arguments: list[str], tmp_path: Path
) -> None:
    folder = run(tmp_path / "run", *conditions, *arguments, "--rounds=4")
    recording = read_recording(folder)
    away = [bool(np.isnan(read_vectors(path)).all(1).any()) for path in recording.rounds]
    assert any(away) == ("participation" in conditions[0])
    player = Replayer(recording, prepare(recording.config))
    assert player.error() == 0.0
    summary = json.loads((folder / "summary.json").read_text())
    for client, own in player.score(player.final(recording.config.aggregator), "test").items():
        assert own == summary["clients"][client]["aggregated"]


def test_rules_that_ask_clients_before_training_are_refused(recorded: Path) -> None:
    with pytest.raises(UserError, match="choose among its models before they train"):
        main([str(recorded), "--methods=ifca"])


def test_the_table_follows_the_primary_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {client: scores(value, REGRESSION) for client, value in (("a", 0.5), ("b", 1.5))}
    found = SplitScores(statistics=summarise(own, REGRESSION), clients=own)
    reading = Reading(rule="m", reading="chain", round=1, splits={"test": found})
    path, _ = write_replay(tmp_path, [reading], REGRESSION, None, Console(width=120))
    printed = " ".join(capsys.readouterr().out.split())
    assert "Rmse of the aggregates θ̄ over clients, without training again" in printed
    assert "highest decile" in printed
    assert "1.000 │ 1.500 │ 1.400 │ 1.000" in printed
    (content,) = json.loads(path.read_text())["readings"]
    assert content["test"]["worst"] == {"rmse": 1.5, "pearson": 0.5}
    assert list(content["test"]) == ["mean", "std", "worst", "bottom_decile", "clients"]
