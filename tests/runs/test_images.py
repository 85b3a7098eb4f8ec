"""Images from folders to adapters: served, exported, onboarded and looked at as texts are."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import fedpl
from fedpl.data import ImageFolder
from fedpl.errors import UserError
from fedpl.onboard import tables
from fedpl.predict import main as predict
from fedpl.runs import dry
from fedpl.runs.exporting import export
from fedpl.tasks import ImageClassification
from tests import tiny_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module", autouse=True)
def cache(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        yield


@pytest.fixture(scope="module")
def config(folder: Path) -> fedpl.Config:
    """CLIP, whose tower is a part of a model and leaves its last norm to who pools."""
    path = tiny_images.zipped(folder / "a.zip", tiny_images.made(("art", "photo")), "PACS/")
    return fedpl.Config.of(
        "fedbip",
        task=ImageClassification(),
        data=ImageFolder(path=str(path)),
        model__path=str(tiny_images.tower(folder / "model", "clip")),
        client__batch_size=4,
        rounds=2,
        accelerator="cpu",
        lora__r=2,
        store_vectors=True,
        tracking__plots=False,
    )


@pytest.fixture(scope="module")
def made(config: fedpl.Config, folder: Path) -> fedpl.Run:
    return fedpl.run(config, run_dir=str(folder / "run"), baselines=[])


def test_a_model_answers_as_it_was_scored(
    made: fedpl.Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From files and from bytes, alone, with others in one pass, and merged into the tower."""
    asked, clients, logits = [], [], []
    for client in made.config.data.load(made.config.seed).clients:
        model, images = fedpl.load(made, client.id), [one.read() for one in client.test.pictures]
        assert model.card.loads_as == "CLIPVisionModel"
        right = [model.labels[label] for label in client.test.labels]
        accuracy = np.mean([a == b for a, b in zip(model.predict(images), right, strict=True)])
        assert accuracy == pytest.approx(model.card.scores.aggregated["accuracy"])
        asked, clients = [*asked, *images], [*clients, *[client.id] * len(images)]
        logits.append(model.logits(images))
    together = fedpl.load_all(made).logits(asked, clients)
    torch.testing.assert_close(together, torch.cat(logits), atol=1e-5, rtol=1e-4)
    page = (made.path / "adapters" / "art" / "README.md").read_text()
    assert "image-classification" in page
    assert "CLIPVisionModel.from_pretrained" in page
    out = export(made.path, "art", folder / "merged", merge=True)
    (folder / "merged" / "image.jpg").write_bytes(asked[0])
    monkeypatch.chdir(out)
    code = (out / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, torch.Tensor] = {}
    exec(code, names)
    torch.testing.assert_close(names["logits"], logits[0][:1], atol=1e-5, rtol=1e-4)
    assert load_file(out / "head.safetensors").keys() == {"head.weight", "head.bias"}
    with pytest.raises(UserError, match="has learnt images"):
        fedpl.load(made, "art").predict([("a", "b")])


def test_predictions_of_a_table_of_paths(
    made: fedpl.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tiny_images.unpacked(tmp_path / "t", tiny_images.made(("art",), 2))
    table = files / "t.csv"
    table.write_text("image,who\nart/red/0.png,photo\nart/blue/1.png,art\n")
    assert predict([str(made.path), str(table), "--clients", "who"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["image"] for row in rows] == ["art/red/0.png", "art/blue/1.png"]
    assert {row["label"] for row in rows} <= {"red", "blue"}


def test_a_newcomer_from_a_folder_and_from_a_table(made: fedpl.Run, tmp_path: Path) -> None:
    files = {name.partition("/")[2]: content for name, content in tiny_images.made(("new",), 6).items()}
    folder = tiny_images.unpacked(tmp_path / "acme", files)
    (found,) = made.onboard(folder, name="acme", rounds=1)
    assert found.scores["test"].local["accuracy"] >= 0
    assert fedpl.load(made, "acme", newcomer=True).predict([folder / "red" / "0.png"])[0] in ("red", "blue")
    table = folder / "acme.csv"
    table.write_text("\n".join(["image,label", *(f"{name},{name.split('/')[0]}" for name in files)]))
    listed = tables.newcomers(made.config, [str(table)], ("blue", "red"))
    assert (listed.ids, len(listed.clients[0].train)) == (("acme",), found.examples)


def test_before_a_run_an_image_is_shown(config: fedpl.Config) -> None:
    screen = io.StringIO()
    dry.run(config, Console(file=screen, width=120))
    assert " pixels; as the model sees it 16 × 16, mean red, green, blue" in screen.getvalue()
    assert "→ ⟦" in screen.getvalue()


def test_cut_off_and_one_by_one_it_is_the_same(made: fedpl.Run, config: fedpl.Config, tmp_path: Path) -> None:
    fedpl.run(config, run_dir=str(tmp_path / "cut"), baselines=[], rounds=1)
    again = fedpl.go_on(tmp_path / "cut", rounds=2)
    alone = fedpl.run(config, run_dir=str(tmp_path / "alone"), baselines=[], rounds=1, client__cohort_size=1)
    whole, parts, single = (run.rounds.filter(regex="validation|loss") for run in (made, again, alone))
    assert whole.equals(parts[whole.columns])
    np.testing.assert_allclose(single["train_loss"], whole["train_loss"][:1], rtol=1e-4)
