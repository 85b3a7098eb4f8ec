"""fedpl from Python: what a notebook or another program uses."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

import fedpl
from fedpl.cli import make_parser, read
from fedpl.data import Pairs
from fedpl.predict import main as predict
from fedpl.settings import plain
from fedpl.tracking.progress import Display

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config(small_run: list[str]) -> fedpl.Config:
    return read(make_parser("fit", ""), small_run)


@pytest.fixture(scope="module")
def run(config: fedpl.Config, tmp_path_factory: pytest.TempPathFactory) -> fedpl.Run:
    folder = tmp_path_factory.mktemp("api") / "run"
    return fedpl.run(config, method="fedbip_l", rounds=2, run_dir=str(folder), baselines=["local"])


def test_the_public_surface() -> None:
    assert set(fedpl.__all__) <= set(dir(fedpl))
    assert all(getattr(fedpl, name) is not None for name in fedpl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        fedpl.nothing  # noqa: B018


def test_a_run_says_what_it_was(run: fedpl.Run, config: fedpl.Config) -> None:
    assert run.config == fedpl.Config.load(run.path / "config.yaml")
    assert (run.config.name, run.config.aggregator.granularity) == ("fedbip_l", "block")
    assert plain(run.config)["data"] == plain(config)["data"]
    assert run.finished
    assert repr(run) == f"<fedpl run of fedbip_l in {run.path}, finished>"
    assert run.summary.method == "fedbip_l"
    assert set(run.summary.baselines) == {"local"}
    assert run.clients == tuple(run.summary.clients)


def test_rounds_are_a_table(run: fedpl.Run) -> None:
    table = run.rounds
    assert list(table.index) == [1, 2]
    last = run.summary.validation
    assert last is not None
    assert last.mean.aggregated is not None
    assert table["validation/aggregated/mean/accuracy"][2] == last.mean.aggregated["accuracy"]
    assert (table["train_loss"] > 0).all()


def test_matrices_of_every_round(run: fedpl.Run) -> None:
    for found, wanted in ((run.similarity(), run.summary.similarity), (run.weights(2), run.summary.weights)):
        assert list(found.index) == list(found.columns) == list(run.clients)
        np.testing.assert_array_equal(found, np.asarray(wanted, np.float32))
    assert not np.array_equal(run.weights(1), run.weights(2))
    with pytest.raises(fedpl.UserError, match="name a round that the run has done"):
        run.weights(3)


def test_a_client_s_model_gives_the_scores_of_the_summary(run: fedpl.Run) -> None:
    """The answers by which the run itself scored it."""
    data = run.config.data.load(run.config.seed)
    for client in data.clients:
        model = fedpl.load(run, client.id)
        answers, logits = model.predict(client.test.texts), model.logits(client.test.texts)
        assert [model.labels[i] for i in logits.argmax(-1)] == answers
        right = [
            data.classes[label] == answer for label, answer in zip(client.test.labels, answers, strict=True)
        ]
        scores = run.summary.clients[client.id].scores.aggregated
        assert scores is not None
        assert np.mean(right) == pytest.approx(scores["accuracy"])
        assert model.card.scores.aggregated == scores
        assert not model.model.training
    assert model.predict([]) == []
    assert model.logits([]).shape == (0, 2)
    with pytest.raises(fedpl.UserError, match="nothing of client 'nobody'; there is one-a"):
        fedpl.load(run.path, "nobody")
    with pytest.raises(fedpl.UserError, match="holds nothing of client"):
        fedpl.load(run, client.id, personal=True)


def test_an_adapter_s_folder_says_what_it_is(run: fedpl.Run, small_model: Path, tmp_path: Path) -> None:
    folder = run.path / "adapters" / run.clients[0]
    card = json.loads((folder / "fedpl.json").read_text())
    weights = hashlib.sha256((small_model / "model.safetensors").read_bytes()).hexdigest()
    assert (card["id2label"], card["pooling"], card["round"]) == ({"0": "no", "1": "yes"}, "mean", 2)
    assert (card["base"], card["base_sha256"]) == (str(small_model), weights)
    page = (folder / "README.md").read_text()
    for words in (
        weights,
        "0 no, 1 yes",
        "pooling: mean",
        "`fedbip_l`",
        "fedpl.load(",
        "AutoModel.from_pretrained",
    ):
        assert words in page
    other = tmp_path / "other"
    shutil.copytree(small_model, other)
    assert fedpl.load(run, run.clients[0], base=other).predict(["a good seat"])
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, other / "model.safetensors")
    with pytest.raises(fedpl.UserError, match=f"have SHA-256 {weights}, those of .*other have (?!{weights})"):
        fedpl.load(run, run.clients[0], base=other)
    with pytest.raises(fedpl.UserError, match="cannot load 'nowhere'"):
        fedpl.load(run, run.clients[0], base="nowhere")


def test_the_code_of_a_model_card_runs(
    config: fedpl.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_table: Path
) -> None:
    """On the architecture's own classifier, where it has the same head."""
    made = fedpl.run(config, model__pooling="first", baselines=[], run_dir=str(tmp_path / "run"), rounds=1)
    client = made.clients[0]
    model = fedpl.load(made, client)
    monkeypatch.chdir(made.path / "adapters" / client)
    *_, code = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    with torch.no_grad():
        tokens = names["tokenizer"](["a text", "a good flight"], padding=True, return_tensors="pt")
        found = names["model"](input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits
    torch.testing.assert_close(found, model.logits(["a text", "a good flight"]))
    assert names["model"].config.id2label == {0: "no", 1: "yes"}


def test_personal_models(config: fedpl.Config, tmp_path: Path) -> None:
    made = fedpl.run(config, method="ditto", baselines=[], run_dir=str(tmp_path / "run"))
    client = made.clients[0]
    personal, aggregate = (fedpl.load(made, client, personal=own) for own in (True, False))
    assert (personal.logits(["a good seat"]) - aggregate.logits(["a good seat"])).abs().max() > 0
    assert personal.card.kind == "personal"


def test_pictures(run: fedpl.Run) -> None:
    drawn = run.report()
    assert {path.suffix for path in drawn} == {".png", ".html"}
    assert all(path.is_file() for path in drawn)


def test_an_interrupted_run_goes_on(
    config: fedpl.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: fedpl.Run
) -> None:
    class Stop(Exception):
        pass

    def stop(method: object, folder: object) -> None:
        raise Stop

    changes = {"method": "fedbip_l", "rounds": 2, "baselines": ["local"], "run_dir": str(tmp_path / "run")}
    with monkeypatch.context() as patch:
        patch.setattr("fedpl.runs.experiment.deliver", stop)
        with pytest.raises(Stop):
            fedpl.run(config, **changes)
    opened = fedpl.Run.open(tmp_path / "run")
    assert not opened.finished
    assert "2 of 2 rounds done" in repr(opened)
    with pytest.raises(fedpl.UserError, match=r"no summary yet; go on with fedpl\.go_on"):
        opened.summary  # noqa: B018
    with pytest.raises(fedpl.UserError, match=r"started with other settings \(client.lr"):
        fedpl.go_on(tmp_path / "run", client__lr=1.0)
    again = fedpl.go_on(tmp_path / "run")
    assert again.summary.test == run.summary.test
    longer = fedpl.go_on(tmp_path / "run", rounds=3)
    assert len(longer.rounds) == 3


def test_mistakes_are_found_before_anything_is_made(tmp_path: Path, config: fedpl.Config) -> None:
    with pytest.raises(fedpl.UserError, match="rounds: at least 1"):
        fedpl.run(config, rounds=0, run_dir=str(tmp_path / "run"))
    with pytest.raises(fedpl.UserError, match=r"did you mean 'client\.lr'"):
        fedpl.run(config, client__lrr=0.1, run_dir=str(tmp_path / "run"))
    with pytest.raises(fedpl.UserError, match="holds no run"):
        fedpl.Run.open(tmp_path)
    with pytest.raises(fedpl.UserError, match="holds no run"):
        fedpl.go_on(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_method_is_said_in_the_first_lines(
    config: fedpl.Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"aggregator.weighting.floor": 0.5, "aggregator.stale_discount": 0.5}
    fedpl.run(config, rounds=1, baselines=[], run_dir=str(tmp_path / "run"), **changes)
    said = capsys.readouterr().out
    assert "other than the method 'fedbip' that ships: aggregator.weighting.floor 0.5\n" in said


@pytest.mark.parametrize("widgets", [False, True])
def test_a_notebook_sees_progress(widgets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live where it can show what changes; else plain lines, without a warning."""
    monkeypatch.setattr("fedpl.tracking.progress.find_spec", lambda name: object() if widgets else None)
    display = Display(Console(force_jupyter=True), True)
    assert display._live.disable is not widgets
    if not widgets:
        with warnings.catch_warnings(), display:
            warnings.simplefilter("error")
            display.begin("fedbip", 2, 3)


def test_a_small_program_passes_mypy(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import fedpl\n"
        "config = fedpl.Config.of('fedbip_l', rounds=3)\n"
        "run: fedpl.Run = fedpl.run(config, client__lr=1e-3)\n"
        "reveal_type(run.summary.rounds)\n"
        "reveal_type(run.config.method)\n"
        "reveal_type(fedpl.Run.open('x').finished)\n"
        "fedpl.run(3)\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        f"--cache-dir={tmp_path}",
        ".",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=300
    )
    lines = done.stdout.splitlines()
    revealed = [line.split("note: ")[1] for line in lines if "Revealed type" in line]
    assert revealed == [f'Revealed type is "{kind}"' for kind in ("int", "fedpl.method.Method", "bool")]
    errors = [line for line in lines if "error:" in line]
    assert len(errors) == 1, done.stdout
    assert 'Argument 1 to "run" has incompatible type "int"' in errors[0]


def environment() -> dict[str, str]:
    return {**os.environ, "MYPYPATH": f"{ROOT}:{ROOT / 'kernels'}"}


def test_a_model_of_pairs(config: fedpl.Config, small_table: Path, tmp_path: Path) -> None:
    """Trained, loaded and asked; with another second text a run is no longer the same."""
    whole = small_table.read_text().splitlines()
    lines = [f"{line},{'claim' if i == 0 else 'a good seat'}" for i, line in enumerate(whole)]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(lines))
    data = {"data__paths": (str(path),), "data__columns__text_pair": "claim"}
    made = fedpl.run(config, run_dir=str(tmp_path / "run"), baselines=[], rounds=1, **data)
    model = fedpl.load(made, made.clients[0])
    test = made.config.data.load(made.config.seed).clients[0].test
    assert isinstance(test, Pairs)
    answers = model.predict([*zip(test.texts, test.seconds, strict=True)])
    right = np.mean(
        [model.labels.index(one) == label for one, label in zip(answers, test.labels, strict=True)]
    )
    assert model.card.scores.aggregated is not None
    assert right == pytest.approx(model.card.scores.aggregated["accuracy"])
    changed = model.logits([("a bad seat", "a good seat")]) - model.logits([("a good seat", "a bad seat")])
    assert changed.abs().max() > 0
    table = tmp_path / "asked.csv"
    table.write_text("text,claim\na bad seat,a good seat\n")
    assert (
        predict([str(made.path), str(table), "--client", made.clients[0], f"--out={tmp_path / 'out.csv'}"])
        == 0
    )
    (answer,) = model.predict([("a bad seat", "a good seat")])
    assert f"a bad seat,a good seat,{answer}," in (tmp_path / "out.csv").read_text()
    for asked in (["a good seat"], [("a", "b"), "c"]):
        with pytest.raises(fedpl.UserError, match="has learnt pairs of texts: give"):
            model.predict(asked)
    assert (
        "predict([('a text', 'its second')])"
        in (made.path / "adapters" / made.clients[0] / "README.md").read_text()
    )
    path.write_text("\n".join(lines).replace("a good seat", "a fine seat"))
    with pytest.raises(fedpl.UserError, match="the clients' data are no longer those of the run"):
        fedpl.go_on(made.path, rounds=2)
