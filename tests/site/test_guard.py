"""The model that a client uses by its own validation data."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import fedpl
from fedpl.config import Config
from fedpl.data import Columns, FederatedData, Split, TextFiles
from fedpl.errors import UserError
from fedpl.fit import main
from fedpl.problems import problems
from fedpl.site.guard import MODELS, check, choose
from fedpl.tasks import Choice, Generation
from fedpl.tasks.metrics import classification_scores

QUIET = ["--tracking.plots=false", "--tracking.progress=false", "--client.lr=0.02"]
GUARD = "--client.guard=validation"


def right(*answers: int) -> np.ndarray:
    return np.array(answers, float)


@pytest.mark.parametrize(
    ("received", "own", "mixture", "chosen"),
    [
        (right(1, 1, 0, 0), right(1, 1, 0, 0), right(1, 1, 0, 0), "received"),
        (right(1, 1, 1, 1), right(0, 0, 0, 0), right(1, 0, 0, 0), "received"),
        (right(0, 0, 0, 0, 1), right(1, 1, 1, 1, 1), right(1, 1, 1, 0, 1), "own"),
        (right(0, 0, 0, 0, 0), right(1, 1, 0, 0, 0), right(1, 1, 1, 1, 0), "mixture"),
        (right(0, 1, 0, 1, 0, 1), right(1, 0, 1, 0, 1, 1), right(0, 1, 0, 1, 0, 1), "received"),
        (right(0), right(1), right(1), "received"),  # one example says nothing
    ],
)
def test_the_received_model_unless_another_is_better_for_certain(
    received: np.ndarray, own: np.ndarray, mixture: np.ndarray, chosen: str
) -> None:
    assert MODELS[choose([received, own, mixture])] == chosen


@pytest.mark.parametrize("examples", [5, 20, 40])
def test_models_that_are_as_good_are_taken_no_oftener_than_a_standard_error_is_exceeded(
    examples: int,
) -> None:
    rng, draws = np.random.default_rng(examples), 1000
    taken = sum(choose(list(rng.integers(0, 2, (2, examples)).astype(float))) > 0 for _ in range(draws))
    assert taken <= binom.ppf(0.999, draws, 0.1587)


def test_examples_are_judged_one_by_one() -> None:
    assert Choice().goods(
        [(1, 7, 0, 0), (1, 7, 1, 0), (1, 3, 0, 1), (1, 3, 1, 1)], [-1.0, -2.0, -1.0, -2.0]
    ) == [
        0.0,
        1.0,
    ]
    assert Generation().goods([(2,), (4,)], [-1.0, -1.0]) == pytest.approx([-0.5, -0.25])


@pytest.fixture(scope="module")
def runs(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run without a guard and with one."""
    folders = {name: tmp_path_factory.mktemp("guard") / name for name in ("none", "validation")}
    for name, folder in folders.items():
        assert (
            main([*small_run, *QUIET, f"--run_dir={folder}", "--baselines=[]", f"--client.guard={name}"]) == 0
        )
    return folders


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_travels_and_what_the_server_makes_of_it_is_the_same(runs: dict[str, Path]) -> None:
    none, guarded = (records(folder) for folder in runs.values())
    for before, after in zip(none, guarded, strict=True):
        for key in ("bytes_up", "bytes_down", "train_loss", "steps"):
            assert before[key] == after[key]
        assert before["clients"]["self_weight"] == after["clients"]["self_weight"]
        assert before["validation"]["aggregated"] == after["validation"]["aggregated"]
        assert before["clients"].get("guard") is None
        assert set(after["clients"]["guard"]) <= set(MODELS)
    assert set(guarded[0]["clients"]["guard"]) == {"own"}, "nothing has been received of others yet"


def test_clients_are_left_with_the_model_that_was_scored(runs: dict[str, Path], small_table: Path) -> None:
    folder = runs["validation"]
    summary = json.loads((folder / "summary.json").read_text())
    source = TextFiles((str(small_table),), Columns(split="split"))
    for client in source.load(0).clients:
        model = fedpl.load(folder, client.id, personal=True)
        found = model.logits(client.test.texts).argmax(-1).tolist()
        reached = classification_scores(client.test.labels, found)["accuracy"]
        assert reached == summary["clients"][client.id]["tuned"]["accuracy"]


def test_one_by_one_nobody_falls_back_to_what_nobody_has_trained(
    small_run: list[str], tmp_path: Path
) -> None:
    words = ["--rounds=1", "--baselines=[]", "--client.cohort_size=1", GUARD, f"--run_dir={tmp_path / 'run'}"]
    assert main([*small_run, *QUIET, *words, "--client.lr=10.0"]) == 0  # what it makes of θ₀ is worse
    assert set(records(tmp_path / "run")[0]["clients"]["guard"]) == {"own"}


def test_a_longer_run_goes_on_with_its_guard(
    runs: dict[str, Path], small_run: list[str], tmp_path: Path
) -> None:
    """One round, then gone on with to two: as two at once."""
    folder = tmp_path / "run"
    arguments = [*small_run, *QUIET, f"--run_dir={folder}", "--baselines=[]", GUARD]
    assert main([*arguments, "--rounds=1"]) == 0
    assert main([f"--resume={folder}", "--rounds=2"]) == 0
    whole, again = (json.loads((one / "summary.json").read_text()) for one in (runs["validation"], folder))
    for found in (whole, again):
        found.pop("seconds")
    assert again == whole


def test_methods_that_have_a_model_of_their_own(small_run: list[str], tmp_path: Path) -> None:
    """Ditto's v stands for what training made; private clients do not say what they use."""
    folder = tmp_path / "run"
    private = ["--privacy.clip=1", "--privacy.noise_multiplier=0.1", "--method=ditto", "--baselines=[local]"]
    assert main([*small_run, *QUIET, f"--run_dir={folder}", GUARD, *private]) == 0
    assert (folder / "personal").exists()
    assert all(record["clients"].get("guard") is None for record in records(folder))


def test_what_does_not_go_with_a_guard_is_refused(small_table: Path) -> None:
    for method in ("feddpa", "flora"):
        (line,) = problems(Config.of(method, client__guard="validation", baselines=[]))
        assert line.startswith(f"client.guard: '{method}' ")
    assert not problems(Config.of("ifca", client__guard="validation"))
    clients = list(TextFiles((str(small_table),), Columns(split="split")).load(0).clients)
    clients[1] = dataclasses.replace(clients[1], validation=Split((), ()))
    with pytest.raises(UserError, match=rf"client '{clients[1].id}' has none \(1 of 3 clients\)"):
        check(FederatedData(tuple(clients), ("no", "yes")))
