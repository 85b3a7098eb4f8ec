"""What hostile clients send, and that it is told apart in the records."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedpl.conditions import FaultsConfig, ParticipationConfig, PrivacyConfig
from fedpl.config import Config
from fedpl.data import ClientData, FederatedData, Split
from fedpl.fit import main
from fedpl.problems import problems
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import run_rounds
from fedpl.site.faults import Faults, with_false_labels

NAMES = ("a", "b", "c", "d")


def attacked(kind: str, strength: float = 2.0, round: int = 1, present: tuple[int, ...] = (0, 1, 2, 3)):  # type: ignore[no-untyped-def]
    """Rows before and after an attack by a and c."""
    before = torch.arange(1.0, 41.0).reshape(4, 10)
    after = before.clone()
    faults = Faults(NAMES, FaultsConfig(hostile=0.5, attack=kind, strength=strength), 0)
    faults.hostile = frozenset("ac")
    faults.attack({NAMES[row]: after[row] for row in present}, round)
    assert after[[1, 3]].equal(before[[1, 3]]), "the honest ones are not touched"
    return before, after


def test_sign_flip_and_scaling() -> None:
    before, after = attacked("sign_flip")
    assert after[[0, 2]].equal(-2 * before[[0, 2]])
    before, after = attacked("scale")
    assert after[[0, 2]].equal(2 * before[[0, 2]])


def test_noise_has_the_length_asked_for_and_is_new_in_every_round() -> None:
    before, after = attacked("gaussian")
    assert torch.allclose(after[[0, 2]].norm(dim=1), 2 * before[[0, 2]].norm(dim=1))
    assert not attacked("gaussian", round=2)[1][0].allclose(after[0])
    assert attacked("gaussian")[1].equal(after)


def test_mimics_all_send_what_one_honest_client_sends() -> None:
    before, after = attacked("mimic", strength=1.0)
    assert after[0].equal(after[2])
    copied = [row for row in (1, 3) if after[0].equal(before[row])]
    assert len(copied) == 1
    assert attacked("mimic", 1.0, round=2)[1][0].equal(after[0]), "the same one in every round"
    _, alone = attacked("mimic", 1.0, present=(0, 2))
    assert alone[0].equal(before[0]), "without anybody to copy they send their own"


def test_colluders_send_the_honest_mean_reversed() -> None:
    before, after = attacked("collude")
    expected = -2 * before[[1, 3]].mean(0)
    assert torch.allclose(after[0], expected)
    assert torch.allclose(after[2], expected)


def test_aligned_attackers_look_like_one_and_pull_away_from_the_others() -> None:
    torch.manual_seed(0)
    rows = {name: torch.randn(10) for name in NAMES}
    faults = Faults(NAMES, FaultsConfig(hostile=0.25, attack="align", strength=3.0), 0)
    faults.hostile = frozenset("a")
    own = faults._victim(rows)
    assert own is not None
    victim = rows[own].clone()
    mean = torch.stack([rows[name] for name in "bcd"]).mean(0)
    faults.attack(rows, 1)
    sent = rows["a"]
    assert sent.norm() == pytest.approx(3 * float(victim.norm()), rel=1e-5)
    assert torch.cosine_similarity(sent, victim, dim=0) == pytest.approx(2**-0.5, abs=1e-5)
    across = mean - victim * (mean @ victim / (victim @ victim))
    assert torch.cosine_similarity(sent, -across, dim=0) == pytest.approx(2**-0.5, abs=1e-5)


@pytest.mark.parametrize("attack", ["align", "collude"])
def test_those_who_look_at_all_train_with_all(attack: str) -> None:
    faults = Faults(NAMES, FaultsConfig(hostile=0.25, attack=attack), 0)
    faults.hostile = frozenset("a")
    assert faults.company([["c", "b"], ["d", "a"]]) == [["a", "b", "c", "d"]]
    assert faults.company([["c", "b"], ["d"]]) == [["c", "b"], ["d"]]
    alone = {"a": torch.ones(10)}
    faults.attack(alone, 1)
    assert alone["a"].equal(torch.ones(10)), "without anybody to look at they send their own"


def test_attackers_that_are_absent_do_nothing() -> None:
    before, after = attacked("sign_flip", present=(1, 2, 3))
    assert after[0].equal(before[0])
    assert after[2].equal(-2 * before[2])


def test_flipped_labels_are_those_of_the_training_data() -> None:
    split = Split(("x", "y", "z"), (0, 1, 2))
    data = FederatedData(tuple(ClientData(name, split, split, split) for name in NAMES), ("p", "q", "r"))
    settings = FaultsConfig(hostile=0.25, attack="label_flip")
    flipped = with_false_labels(data, settings, 0)
    (hostile,) = (NAMES.index(client) for client in Faults(NAMES, settings, 0).hostile)
    assert flipped.clients[hostile].train.labels == (1, 2, 0)
    assert flipped.clients[hostile].test == split
    assert [client for i, client in enumerate(flipped.clients) if i != hostile] == [
        client for i, client in enumerate(data.clients) if i != hostile
    ]


def test_mimics_train_with_the_one_they_copy(toy: Callable[..., Federation]) -> None:
    faults = FaultsConfig(hostile=0.3, attack="mimic")
    run = toy(faults=faults)
    hostile = run.executor.faults.hostile
    result = next(run_rounds(run, 1))
    sent = {client: result.vectors[row] for row, client in enumerate(run.clients)}
    (victim,) = (c for c in run.clients if c not in hostile and sent[c].equal(sent[min(hostile)]))
    assert all(sent[client].equal(sent[victim]) for client in hostile)


def test_an_attack_reaches_the_server_in_every_round(toy: Callable[..., Federation]) -> None:
    faults = FaultsConfig(hostile=0.3, attack="sign_flip", strength=3.0)
    honest, hostile = (next(run_rounds(toy(faults=f), 2)).vectors.clone() for f in (FaultsConfig(), faults))
    changed = [row for row in range(7) if not hostile[row].equal(honest[row])]
    assert len(changed) == 2
    assert hostile[changed].equal(-3 * honest[changed])


def test_an_absurd_attack_is_put_aside(toy: Callable[..., Federation]) -> None:
    faults = FaultsConfig(hostile=0.3, attack="scale", strength=1e4)
    result = next(run_rounds(toy(faults=faults), 2))
    assert len(result.rejected) == 2
    assert all("has length" in reason for reason in result.rejected.values())


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (Config(participation=ParticipationConfig(fraction=0.0)), "participation.fraction"),
        (Config(participation=ParticipationConfig(min_clients=0)), "participation.min_clients"),
        (Config(participation=ParticipationConfig(max_norm=1.0)), "participation.max_norm"),
        (Config(faults=FaultsConfig(lost=1.0)), "faults.lost"),
        (Config(faults=FaultsConfig(hostile=-0.1)), "faults.hostile"),
        (Config(faults=FaultsConfig(hostile=0.1, attack="scale")), "faults.strength"),
        (Config(privacy=PrivacyConfig(clip=0.0)), "privacy.clip"),
        (Config(privacy=PrivacyConfig(clip=1.0, noise_multiplier=0.0)), "privacy.noise_multiplier"),
        (Config(privacy=PrivacyConfig(delta=1.0)), "privacy.delta"),
    ],
)
def test_wrong_settings_are_named(config: Config, key: str) -> None:
    assert [line for line in problems(config) if line.startswith(f"{key}: ")]


@pytest.fixture(scope="module")
def hard_run(small_model: Path, small_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under all conditions at once."""
    folder = tmp_path_factory.mktemp("runs") / "hard"
    arguments = [
        f"--run_dir={folder}",
        f"--model.path={small_model}",
        "--data=fedpl.data.TextFiles",
        f"--data.paths=[{small_table}]",
        "--data.columns.split=split",
        "--lora.r=2",
        "--client.epochs=1",
        "--rounds=4",
        "--seed=7",
        "--accelerator=cpu",
        "--participation.fraction=0.7",
        "--faults.lost=0.2",
        "--faults.hostile=0.34",
        "--faults.attack=label_flip",
        "--privacy.clip=1",
        "--privacy.noise_multiplier=0.1",
        "--store_vectors=true",
    ]
    assert main(arguments) == 0
    return folder


def test_the_summary_tells_honest_clients_apart(hard_run: Path) -> None:
    summary = json.loads((hard_run / "summary.json").read_text())
    (hostile,) = summary["hostile"]["clients"]
    assert summary["hostile"]["attack"] == "label_flip"
    honest = [scores for client, scores in summary["clients"].items() if client != hostile]
    accuracies = [scores["aggregated"]["accuracy"] for scores in honest]
    assert summary["honest"]["mean"]["aggregated"]["accuracy"] == pytest.approx(sum(accuracies) / 2)
    assert summary["honest"]["worst"]["aggregated"]["accuracy"] == min(accuracies)
    assert all("honest" in baseline for baseline in summary["baselines"].values())
    assert summary["privacy"]["epsilon"] > 0


def test_the_records_say_who_took_part_and_what_it_cost(hard_run: Path) -> None:
    records = [json.loads(line) for line in (hard_run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((hard_run / "summary.json").read_text())
    for record in records:
        losses = record["clients"]["train_loss"]
        present = [loss is not None for loss in losses]
        assert sum(present) == record["participants"] == record["drawn"] - len(record["rejected"])
        assert [age == 0 for age in record["clients"]["age"]] == present
        assert record["train_loss"] == pytest.approx(
            sum(loss for loss in losses if loss is not None) / sum(present)
        )
        for scores, here in zip(record["validation"]["clients"].values(), present, strict=True):
            assert (scores["tuned"] is not None) == here
            assert scores["aggregated"] is not None
    assert [r["epsilon"] for r in records] == sorted(r["epsilon"] for r in records)
    assert summary["privacy"]["epsilon"] == records[-1]["epsilon"]
    times = [client for record in records for client in record["rejected"]]
    assert summary["rejected"] == {client: times.count(client) for client in times}
    tuned = [scores["tuned"] is not None for scores in summary["clients"].values()]
    assert tuned == [loss is not None for loss in records[-1]["clients"]["train_loss"]]
    assert not all(tuned), "the conditions are such that somebody is absent in the last round"


def test_stored_vectors_leave_out_who_was_away(hard_run: Path) -> None:
    import numpy as np

    records = [json.loads(line) for line in (hard_run / "metrics.jsonl").read_text().splitlines()]
    for record in records:
        stored = np.load(hard_run / "vectors" / f"round-{record['round']:04d}.npy")
        away = [loss is None for loss in record["clients"]["train_loss"]]
        assert np.isnan(stored).all(1).tolist() == away
        assert np.isfinite(stored).all(1).tolist() == [not gone for gone in away]
