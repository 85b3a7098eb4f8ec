"""Checkpoints and journals come back as they were written, or not at all."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpl.errors import UserError
from fedpl.files import read_tensors, write_tensors
from fedpl.records.messages import Company, Report, Seconds
from fedpl.rounds.checkpoints import Checkpoint, Checkpoints, Ledger, Outdated
from fedpl.rounds.journal import Delivery, Journal
from fedpl.rounds.room import Room
from fedpl.server.rows import once
from fedpl.server.state import ServerState, load_state, save_state


def checkpoint(round: int = 1) -> Checkpoint:
    memory = {
        "server": {"momentum": jnp.array([[0.5], [-1.0]])},
        "weighting": {"labels": jnp.array([1, 0]), "on.off": jnp.array(True)},
    }
    personal, reference = jnp.array([[0.1, -0.0], [math.pi, 1e-40]]), jnp.array([1.0, 2.0])
    state = ServerState(round, personal, reference, memory, jnp.array([0.5, -0.0, 3.0]))
    return Checkpoint(
        state,
        Ledger(
            np.array([0, -1]), np.array([7, 0]), np.array([round, 0]), np.array([1, 0]), np.array([0.5, 0.0])
        ),
        np.array([[1.5, 2.5], [0.0, 0.0]], np.float32),
        {"a": "", "b": "0f" * 16},
        {"size": 4, "tokens": 2048},
        "origin",
        12.5,
    )


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return describe(one) == describe(other)


def describe(found: Checkpoint) -> object:
    def plain(value: object) -> object:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if isinstance(value, str | int | float | type(None)):
            return value
        array = np.asarray(value)
        return array.dtype.str, array.shape, array.tobytes()

    return plain(tuple(found))


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(checkpoint())
    found = Checkpoints(tmp_path).latest()
    assert found is not None
    assert same(found, checkpoint())


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for round in (1, 2, 3):
        Checkpoints(tmp_path).save(checkpoint(round))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "aggregates-000002.npy",
        "aggregates-000003.npy",
        "round-000002.safetensors",
        "round-000003.safetensors",
    ]
    assert Checkpoints(tmp_path).latest().state.round == 3
    assert Checkpoints(tmp_path).latest(2).state.round == 2
    assert Checkpoints(tmp_path).latest(1) is None


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).latest() is None


def test_a_damaged_newest_falls_back_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    for round in (1, 2):
        checkpoints.save(checkpoint(round))
    newest = tmp_path / "round-000002.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert same(checkpoints.latest(), checkpoint(1))
    assert "round-000002" in caplog.text
    assert "going back" in caplog.text


@pytest.mark.parametrize("name", ["round-000001.safetensors", "aggregates-000001.npy"])
def test_cut_at_every_byte_it_is_never_taken_for_another(name: str, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(checkpoint())
    path = tmp_path / name
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert checkpoints.latest() is None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_byte_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("state")
    Checkpoints(folder).save(checkpoint())
    path = folder / data.draw(st.sampled_from(["round-000001.safetensors", "aggregates-000001.npy"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    found = Checkpoints(folder).latest()
    assert found is None or same(found, checkpoint())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_other_file_is_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("state") / "server.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_state(path)


def test_states_are_read_from_checkpoints_too(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(checkpoint())
    state = load_state(tmp_path / "round-000001.safetensors")
    assert state.round == 1
    assert {choice: sorted(own) for choice, own in state.memory.items()} == {
        "server": ["momentum"],
        "weighting": ["labels", "on.off"],
    }
    save_state(state, tmp_path / "again.safetensors")
    again = load_state(tmp_path / "again.safetensors")
    assert np.array_equal(np.asarray(again.personal), np.asarray(checkpoint().state.personal))
    with pytest.raises(UserError, match="cannot be read"):
        load_state(tmp_path / "nowhere")


def test_another_version_s_checkpoint_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(checkpoint())
    path = tmp_path / "round-000001.safetensors"
    tensors, metadata = read_tensors(path)
    del metadata["format"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(Outdated, match=r"has format 1 of another version of fedpl, this one reads 5"):
        Checkpoints(tmp_path).latest()


@pytest.mark.parametrize("on_disk", [False, True])
def test_checkpoints_that_hold_their_aggregates_are_read(on_disk: bool, tmp_path: Path) -> None:
    """As versions before wrote them; the next one names files."""
    expected = checkpoint()
    Checkpoints(tmp_path).save(expected)
    path = tmp_path / "round-000001.safetensors"
    tensors, metadata = read_tensors(path)
    own = {name: value for name, value in tensors.items() if not name.startswith("models.")}
    own |= once({"personal": np.asarray(expected.state.personal)})
    write_tensors(path, own, {**metadata, "format": "4", "parts": "{}"})
    (tmp_path / "aggregates-000001.npy").unlink()
    checkpoints = Checkpoints(tmp_path)
    found = checkpoints.latest(room=Room(tmp_path, 2, 2, 100) if on_disk else None)
    assert found is not None
    assert same(found, expected)
    checkpoints.save(found)
    assert same(Checkpoints(tmp_path).latest(), expected)


def test_an_intact_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "round-000001.safetensors"
    written = {"round": "1", "format": "4"}
    write_tensors(path, {"x": np.zeros(2)}, written)
    assert read_tensors(path)[1] == written
    with pytest.raises(UserError, match="not a server state"):
        load_state(path)
    assert Checkpoints(tmp_path).latest() is None


MATRIX = torch.arange(12.0).reshape(3, 4) / 7
PLAN = Company((("a", "c"), ("b",)), {"size": 2})
SCORES = {"test": {"accuracy": 1 / 3, "macro_f1": 0.1}}
SECONDS = Seconds(0.1, 0.0, 0.2)
DELIVERY = Delivery(
    (
        Report("a", MATRIX[0], 5, 2, math.nan, {}, SECONDS, memory="0f"),
        Report("c", MATRIX[2], 6, 2, 1 / 3, SCORES, SECONDS, choice=1, late=True, attempt=2),
    ),
    {"b": "its training failed"},
)


def rows(size: int = 4) -> dict[str, torch.Tensor]:
    """Where task vectors belong."""
    return {client: torch.zeros(size) for client in "abc"}


def opened(folder: Path) -> Journal:
    journal = Journal(folder / "open")
    assert journal.open(3, PLAN) == PLAN
    journal.write(0, DELIVERY)
    return journal


def test_a_group_comes_back_as_it_was(tmp_path: Path) -> None:
    into = rows()
    delivery = opened(tmp_path).read(0, into)
    assert repr(delivery) == repr(DELIVERY)
    for report, row in zip(delivery.reports, (0, 2), strict=True):
        assert report.vector is into[report.client]
        assert report.vector.numpy().tobytes() == MATRIX[row].numpy().tobytes()
    assert not into["b"].any()
    assert opened(tmp_path).read(1, rows()) is None


def test_the_plan_of_an_interrupted_round_wins(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    other = Company((("a",), ("b",), ("c",)), {"size": 1})
    assert journal.open(3, other) == PLAN
    assert journal.read(0, rows()) is not None


@pytest.mark.parametrize("plan", [PLAN, Company((("a", "d"), ("b",)), {"size": 2})])
def test_another_round_or_other_clients_start_anew(tmp_path: Path, plan: Company) -> None:
    journal = opened(tmp_path)
    assert journal.open(4 if plan is PLAN else 3, plan) == plan
    assert journal.read(0, rows()) is None


def test_a_closed_journal_leaves_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["group-00000", "plan"])
def test_a_journal_cut_at_every_byte_is_not_trusted(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(tmp_path)
    path = journal.folder / f"{name}.safetensors"
    whole = path.read_bytes()
    for length in range(len(whole)):
        if name == "plan":
            opened(tmp_path)
            path.write_bytes(whole[:length])
            assert journal.open(3, PLAN) == PLAN
        else:
            path.write_bytes(whole[:length])
        assert journal.read(0, rows()) is None
    assert "anew" in caplog.text or "again" in caplog.text


def test_rows_of_another_size_are_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert opened(tmp_path).read(0, rows(5)) is None
    assert "trained again" in caplog.text


@pytest.mark.parametrize("tensors", [{}, {"x": np.zeros((0, 3), np.float32)}, {"y": np.array(True)}])
def test_small_and_empty_files(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    write_tensors(tmp_path / "file", tensors, {"name": "ε"})
    found, metadata = read_tensors(tmp_path / "file")
    assert metadata == {"name": "ε"}
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in found.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in tensors.items()
    }
