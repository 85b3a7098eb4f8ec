"""Images from folders, archives, tables and datasets; what is wrong with one is said in one line."""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.data import (
    ByColumn,
    Columns,
    FederatedData,
    HubText,
    Iid,
    ImageFolder,
    Images,
    TextFiles,
)
from fedpl.data.pictures import asked, decoded
from fedpl.endings import run_main
from fedpl.errors import UserError
from fedpl.runs import experiment
from fedpl.site.census import digest_of
from tests import tiny_images

FILES = tiny_images.made()
Words = Callable[[dict[str, bytes]], list[str]]


def digests(data: FederatedData) -> list[str]:
    return [digest_of(client, data.classes) for client in data.clients]


def test_folder_and_archive_are_the_same(tmp_path: Path) -> None:
    """Wherever they lie, with or without one folder around, beside what systems leave behind."""
    left = {
        "README.txt": b"a list",
        "art/.DS_Store": b"x",
        "__MACOSX/art/red/0.png": b"x",
        "art/red/Thumbs.db": b"x",
    }
    plain = ImageFolder(path=str(tiny_images.zipped(tmp_path / "a.zip", FILES))).load(0)
    top = ImageFolder(path=str(tiny_images.zipped(tmp_path / "b.zip", FILES | left, "PACS/"))).load(0)
    folder = ImageFolder(path=str(tiny_images.unpacked(tmp_path / "c" / "PACS", FILES | left))).load(0)
    assert plain.ids == ("art", "photo", "sketch")
    assert plain.classes == ("blue", "red")
    assert digests(plain) == digests(top) == digests(folder)
    client = folder.clients[0]
    assert isinstance(client.train, Images)
    sizes = [len(split) for split in (client.train, client.validation, client.test)]
    assert sizes == [8, 3, 3]
    assert np.array_equal(*(decoded(own.clients[0].train.pictures[0]) for own in (plain, folder)))


def test_equal_images_stay_together_and_are_told(tmp_path: Path) -> None:
    files = FILES | {f"art/red/again-{i}.png": FILES["art/red/0.png"] for i in range(4)}
    data = ImageFolder(path=str(tiny_images.unpacked(tmp_path, files))).load(0)
    art = data.clients[0]
    holding = [
        own for own in (art.train, art.validation, art.test) if FILES["art/red/0.png"] in contents(own)
    ]
    assert len(holding) == 1


def contents(split: Images) -> list[bytes]:
    return [picture.read() for picture in split.pictures]


def test_made_up_clients_need_classes_alone(tmp_path: Path) -> None:
    classes = {name.partition("/")[2]: content for name, content in FILES.items()}
    source = ImageFolder(path=str(tiny_images.unpacked(tmp_path, classes)), partition=Iid(clients=2))
    made = source.load(0)
    assert (made.ids, made.notes[1:]) == (("client-0", "client-1"), ())
    with pytest.raises(UserError, match="expected images in folders <client>/<class>/"):
        replace(source, partition=ByColumn()).load(0)


def test_a_table_of_paths_and_a_dataset_of_images(tmp_path: Path) -> None:
    folder = tiny_images.unpacked(tmp_path / "files", FILES)
    names = sorted(FILES)
    rows = [dict(zip(("client", "label"), name.split("/"), strict=False)) for name in names]
    table = folder / "t.csv"
    lines = [f"{name},{row['client']},{row['label']}" for name, row in zip(names, rows, strict=True)]
    table.write_text("\n".join(["image,client,label", *lines]))
    right = digests(ImageFolder(path=str(folder)).load(3))
    source = TextFiles(paths=(str(table),), columns=Columns(image="image"))
    assert digests(source.load(3)) == right
    classes = datasets.ClassLabel(2, ["blue", "red"])
    kind = {"image": datasets.Image(), "client": datasets.Value("string"), "label": classes}
    content = {
        "image": [{"bytes": FILES[name], "path": None} for name in names],
        "client": [row["client"] for row in rows],
        "label": [row["label"] for row in rows],
    }
    datasets.Dataset.from_dict(content, datasets.Features(kind)).to_parquet(
        tmp_path / "hub" / "train.parquet"
    )
    hub = HubText(path=str(tmp_path / "hub"), columns=Columns(image="image"))
    found = hub.load(3)
    assert found.classes == ("blue", "red")
    assert images(found) == images(source.load(3))
    assert contents(found.clients[0].train)
    with pytest.raises(UserError, match="'label' holds ClassLabel"):
        replace(hub, columns=Columns(image="label", label="client")).load(3)
    table.write_text(table.read_text().replace("art/red/3.png", "art/red/x.png"))
    with pytest.raises(UserError, match=r"t\.csv: line 12: 'image': no such file: .*x\.png"):
        source.load(3)


def images(data: FederatedData) -> list[object]:
    """Digests of all."""
    return sorted(
        digest
        for client in data.clients
        for own in (client.train, client.validation, client.test)
        for digest in own.said
    )


def converted(picture: Image.Image, format: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, format, **options)
    (own,) = asked([file.getvalue()])
    return decoded(own)


def test_every_mode_becomes_rgb_as_it_looks() -> None:
    red = Image.new("RGB", (16, 12), (220, 30, 30))
    for mode, format in (
        ("CMYK", "jpeg"),
        ("L", "png"),
        ("P", "png"),
        ("1", "png"),
        ("RGBA", "webp"),
        ("LA", "png"),
    ):
        found = converted(red.convert(mode, dither=Image.Dither.NONE), format)
        assert found.mode == "RGB"
        want = red.convert(mode, dither=Image.Dither.NONE).convert("RGB")
        np.testing.assert_allclose(np.asarray(found, int), np.asarray(want, int), atol=12)
    clear = red.convert("RGBA")
    clear.putalpha(0)
    assert converted(clear, "png").getpixel((0, 0)) == (255, 255, 255)
    turned = red.copy()
    turned.putpixel((0, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    assert converted(turned, "png", exif=exif).size == (12, 16)
    with pytest.raises(UserError, match="more than 8 bits a channel"):
        converted(Image.fromarray(np.full((4, 4), 40_000, np.uint16)), "png")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_images.tower(tmp_path_factory.mktemp("model"), "vit")


@pytest.fixture
def words(tmp_path: Path, model: Path, image_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Words:
    monkeypatch.chdir(tmp_path)

    def make(files: dict[str, bytes]) -> list[str]:
        tiny_images.unpacked(tmp_path / "in", files)
        named = ["--data=fedpl.data.ImageFolder", f"--data.path={tmp_path / 'in'}"]
        return [*named, "--task=ImageClassification", f"--model.path={model}", "--accelerator=cpu"]

    return make


_GOOD = FILES["art/red/0.png"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("art/red/x.png", b"", "art/red/x.png: is empty, expected an image"),
        ("art/red/x.jpg", b"not an image", "art/red/x.jpg: is no image that can be decoded (cannot identify"),
        ("art/red/x.ppm", b"P6\n0 0\n255\n", "art/red/x.ppm: is no image that can be decoded"),
        ("art/red/notes.txt", b"a list", "art/red/notes.txt: is no image that can be decoded"),
        ("art/red/x.png", _GOOD[: len(_GOOD) // 2], "art/red/x.png: is no image that can be decoded"),
        ("art/red/x.png", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        ("art/red/x.png", b"<!DOCTYPE html>", "art/red/x.png: is a web page, by its first bytes"),
        ("art/x.png", _GOOD, "art/x.png: expected images in folders <client>/<class>/"),
        ("art/red/a/x.png", _GOOD, "art/red/a/x.png: expected images in folders <client>/<class>/"),
        ("alone/red/x.png", _GOOD, "1 of 4 clients is too small: 'alone' (1 row, none for"),
    ],
    ids=["empty", "words", "no-size", "text", "cut", "lfs", "page", "shallow", "deep", "small"],
)
def test_one_line_names_the_file(
    name: str,
    content: bytes,
    said: str,
    words: Words,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(words(FILES | {name: content}), capsys)
    assert said in line
    assert sorted(path.name for path in Path().iterdir()) in (["cache", "in"], ["in"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 and no more", "is no zip archive, nor a folder"),
        (None, "no such folder or archive"),
        ({}, "holds no images in folders"),
    ],
)
def test_one_line_names_the_archive(
    content: bytes | dict[str, bytes] | None,
    said: str,
    words: Words,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if isinstance(content, dict):
        tiny_images.zipped(Path("x.zip"), content or {"readme.txt": b""})
    elif content is not None:
        Path("x.zip").write_bytes(content)
    assert said in refused([*words({}), "--data.path=x.zip"], capsys)


def test_a_broken_member_of_an_archive(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_images.zipped(Path("x.zip"), FILES)
    with zipfile.ZipFile(path) as file:
        place = file.getinfo("art/red/3.png").header_offset
    content = bytearray(path.read_bytes())
    content[place + 80] ^= 255
    path.write_bytes(content)
    assert "x.zip: art/red/3.png: cannot be read: Bad CRC-32" in refused(
        [*words({}), "--data.path=x.zip"], capsys
    )


def refused(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a run ends with, at exit code 2."""

    def run() -> int:
        experiment.run(read(make_parser("fit", ""), argv), Console(quiet=True))
        return 0

    with pytest.raises(SystemExit) as leaving:
        run_main(run)
    assert leaving.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: ")
    return line
