"""Images at sites of other organisations and in workers: the run that one process gives."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import fedpl
from fedpl.config import Config, with_changes
from fedpl.data import ImageFolder
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Prepared
from fedpl.tasks import ImageClassification
from tests import tiny_images
from tests.executors.test_other_process import one_thread
from tests.executors.test_sites import NAMES, World, same

__all__ = ["one_thread"]
CLIENTS = ("art", "photo", "sketch")


class Galleries(World):
    """Three organisations with a folder of images each."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.opened, self.changed = [], {}
        for name, client in zip(NAMES, CLIENTS, strict=True):
            tiny_images.unpacked(folder / f"{name} images", tiny_images.made((client,)))

    def own(self, place: int) -> Config:
        return with_changes(self.config, {"data.path": str(self.folder / f"{NAMES[place]} images")})


@pytest.fixture
def galleries(tmp_path: Path, image_cache: Path) -> Iterator[Galleries]:
    whole = tmp_path / "all"
    for client in CLIENTS:
        tiny_images.unpacked(whole, tiny_images.made((client,)))
    config = Config.of(
        "fedbip",
        task=ImageClassification(),
        data=ImageFolder(path=str(whole)),
        model__path=str(tiny_images.tower(tmp_path / "model", "vit")),
        client__batch_size=4,
        client__cohort_size=1,
        rounds=2,
        accelerator="cpu",
        lora__r=2,
        baselines=[],
        store_vectors=True,
        tracking__plots=False,
    )
    made = Galleries(config, tmp_path)
    yield made
    for post in made.opened:
        post.close()


@pytest.mark.slow
def test_sites_and_workers_give_the_same_run(galleries: Galleries, tmp_path: Path) -> None:
    config = galleries.config
    alone = run(replace(config, run_dir=str(tmp_path / "alone")), Console(quiet=True))
    executor = galleries.executor(galleries.post(), tmp_path / "there")
    there = run(
        replace(config, run_dir=str(tmp_path / "there")), Console(quiet=True), prepared=Prepared(executor)
    )
    same(alone, there)
    workers = with_changes(config, {"executor.kind": "processes", "run_dir": str(tmp_path / "workers")})
    same(alone, run(workers, Console(quiet=True)))
    (own,) = (tmp_path / "south" / "runs").iterdir()
    asked = [content for name, content in tiny_images.made(("photo",)).items() if "photo" in name]
    assert fedpl.load(own, "photo").predict(asked) == fedpl.load(alone, "photo").predict(asked)
