"""README and docs/ say what is so: commands and settings are there, links lead somewhere, tables are made."""

import argparse
import os
import re
import shlex
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax.numpy as jnp
import numpy as np
import pytest

from fedpl.__main__ import COMMANDS, main
from fedpl.cli import make_parser, read, split_options
from fedpl.compare.__main__ import add_options
from fedpl.compare.statistics import compare
from fedpl.config import Config
from fedpl.settings import flat, plain
from tests import tiny_images
from tests.conftest import small_rows, write_csv

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {
    key
    for page in (ROOT / "docs" / "reference" / "settings").glob("*.md")
    for key in re.findall(r"^\| `([\w.]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
}


GROUPS = {key.rsplit(".", deep)[0] for key in SETTINGS for deep in range(1, key.count(".") + 1)}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands() -> Iterator[tuple[str, str]]:
    """Every command of every block, with its page."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((name(page), one.strip()) for one in line.split("&&") if one.strip())


def code(page: Path) -> Iterator[str]:
    """Code within sentences and tables."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    yield from (" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, small_run: list[str], small_model: Path
) -> Iterator[Path]:
    """A folder with what the pages take for granted: tables, models, runs, a module."""
    folder = tmp_path_factory.mktemp("world")
    for table in ("reviews.csv", "my.csv", "new.csv", "texts.csv", "remaining.csv", "tenants/acme.csv"):
        (folder / table).parent.mkdir(exist_ok=True)
        write_csv(folder / table, small_rows(("one-a",)))
    (folder / "rows.jsonl").write_text('{"prompt": "a", "answer": "b", "client": "c"}\n')
    pictures = tiny_images.made(("one-a",), 3)
    tiny_images.zipped(folder / "pacs.zip", pictures)
    tiny_images.unpacked(folder / "OfficeHome", pictures)
    for model in ("my-model", "SmolLM2-135M-Instruct", "vit-base-patch16-224"):
        (folder / model).symlink_to(small_model)
    (folder / "constraints.txt").symlink_to(ROOT / "constraints.txt")
    (folder / "my_rules.py").write_text(blocks(ROOT / "docs" / "howto" / "method.md", "python")[0])
    run = folder / "runs" / "a"
    lean = [
        "--rounds=1",
        "--tracking.plots=false",
        "--baselines=[]",
        "--store_vectors=true",
        "--client.guard=validation",
        f"--run_dir={run}",
    ]
    assert import_module("fedpl.fit").main([*small_run, *lean]) == 0
    (folder / "runs" / "rules").mkdir()
    for other in ("b", "tenants", "rules/fedbip-s0", "rules/fedbip_g-s0"):
        (folder / "runs" / other).symlink_to(run)
    rules = folder / "runs" / "rules"
    compare({name: {0: rules / f"{name}-s0"} for name in ("fedbip", "fedbip_g")}, 0.02).write(rules)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend(folder)
        yield folder


# Where each command begins to work, once everything it was told has been checked.
WORK = (
    *("fedpl.runs.experiment.run", "fedpl.compare.execute.run_missing", "fedpl.compare.report.write_report"),
    *("fedpl.replay.session.run_replay", "fedpl.sweep.session.run_sweep"),
    *("fedpl.pictures.plots.draw_run", "fedpl.page.write.write_page", "fedpl.page.write.write_at_end"),
)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is trained or written; the list tells what would have been."""
    reached: list[str] = []

    def instead(place: str) -> Callable[..., list[object]]:
        return lambda *_, **__: [reached.append(place)][:0]

    for place in WORK:
        module, _, function = place.rpartition(".")
        monkeypatch.setattr(import_module(module), function, instead(place))
    return reached


def entry(words: list[str], reached: list[str]) -> None:
    """A command of fedpl, up to where it begins to work."""
    others = words[0] not in ("fit", "compare", "replay", "sweep", "report")  # these do all their work
    for place, word in enumerate(words):
        if word in ("--run_dir", "--out") and not others:  # what later commands read is there already
            words[place + 1] = "runs/new"
        if word == "--client":
            words[place + 1] = "one-a"  # of the run that is there
    if "--start_from" in words:  # the run that is there has tiny adapters
        words += ["--lora.r", "2"]
    if "--dry_run" in words:  # which reads the table, and this one says what is for tests
        words += ["--data.columns.split", "split"]
    with patch.object(sys, "argv", ["fedpl", *words]), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    explains = {"--help", "--version", "--print_config", "--list_methods", "--dry_run"} & set(words)
    assert reached or others or explains or any(".help" in word for word in words)


class Parsed(Exception):
    """A benchmark has understood its command line, but for these words."""


def benchmark(module: str, words: list[str]) -> None:
    """A benchmark, up to where its command line is read; what it hands on is a comparison's."""
    known = argparse.ArgumentParser.parse_known_args

    def parse_known_args(parser: argparse.ArgumentParser, given: Any = None, *_: Any) -> Any:
        raise Parsed(known(parser, given)[1])

    def parse_args(parser: argparse.ArgumentParser, given: Any = None, *_: Any) -> Any:
        rest = known(parser, given)[1]
        assert not rest
        raise Parsed([])

    with patch.dict(os.environ), patch.object(sys, "argv", [module, *words]):
        spec = find_spec(module)
        own = import_module(f"{module}.__main__" if spec and spec.submodule_search_locations else module)
        with (
            patch.object(argparse.ArgumentParser, "parse_known_args", parse_known_args),
            patch.object(argparse.ArgumentParser, "parse_args", parse_args),
            pytest.raises(Parsed) as parsed,
        ):
            own.main()
    (rest,) = parsed.value.args
    _, settings = split_options("", "", add_options, rest)
    read(make_parser("fit", ""), settings)


def pip(words: list[str]) -> None:
    """What is installed from here are extras that there are."""
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for wanted in re.findall(r"(?:\.|fedpl)\[([\w,]+)\]", " ".join(words)):
        assert set(wanted.split(",")) <= set(extras)


@pytest.mark.parametrize(("page", "command"), list(dict.fromkeys(commands())))
def test_commands_are_understood(page: str, command: str, world: Path, no_work: list[str]) -> None:
    words = [word for word in shlex.split(command, comments=True) if not re.match(r"[A-Z_]+=", word)]
    program, *rest = words[: words.index(">")] if ">" in words else words
    if Path(program).name in ("python", "python3"):
        assert rest.pop(0) == "-m"
        module = rest.pop(0)
        assert find_spec(module), module
        if module.removeprefix("fedpl.") in COMMANDS:
            entry([module.removeprefix("fedpl."), *rest], no_work)
        elif module.startswith("benchmarks.") and rest:
            benchmark(module, rest)
    elif program == "fedpl":
        entry(rest, no_work)
    elif Path(program).name == "pip":
        pip(rest)
    else:
        assert program in ("mkdocs", "mypy", "ruff", ".ci/run"), f"{page}: which program is {program}?"


def test_modules_options_and_settings_in_sentences_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    options = SETTINGS | set(re.findall(r'"--([\w.]+)"', sources)) | {"help", "print_config"}
    for command in COMMANDS:
        with patch.object(sys, "argv", ["fedpl", command, "--help"]), pytest.raises(SystemExit):
            main()
    options |= set(re.findall(r"--([\w.]+)", capsys.readouterr().out))
    wrong = []
    for page in PAGES:
        for words in code(page):
            wrong += [
                f"{name(page)}: {words}"
                for module in re.findall(r"python -m ([\w.]*[a-z_\d])\b", words)
                if not find_spec(module)
            ]
            if not words.startswith(("pip ", "wandb ", "<!--")):
                wrong += [
                    f"{name(page)}: --{option}"
                    for option in re.findall(r"(?<!\S)--([\w.]+)", words)
                    if option not in options | GROUPS and not option.endswith(".help")
                ]
            key = words.partition(":")[0]
            if re.fullmatch(r"[a-z_]+(\.(?!safetensors)[a-z_]+)+", key) and _of_config(key):
                wrong += [f"{name(page)}: {key}"] * (key not in SETTINGS | GROUPS)
    assert wrong == []


def test_every_setting_is_told() -> None:
    keys = {key.removesuffix(".class_path") for key, _ in flat(plain(Config()))}
    assert keys - SETTINGS - GROUPS <= {"aggregator.similarity", "task"}, (
        "choices without settings of their own"
    )
    assert "aggregator.weighting.inner" in SETTINGS


def _of_config(key: str) -> bool:
    return key.split(".")[0] in Config.__dataclass_fields__


def anchors(page: Path) -> set[str]:
    """Where a link can lead within a page, as the site has it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(((?!https?:)[^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_every_page_is_in_the_site_and_stays_short() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    listed = set(re.findall(r"^\s+- (?:[\w ]+: )?([\w/-]+\.md)$", nav, re.MULTILINE))
    there = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert there == {page for page in listed if not page.startswith("benchmarks/")}
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160
    # With --quiet warnings are not counted, and nothing is strict.
    assert "mkdocs build --strict\n" in (ROOT / ".ci" / "run").read_text()


def test_what_is_made_is_up_to_date() -> None:
    with patch.dict(os.environ):  # some benchmarks set variables when they are imported
        made = import_module("docs.made.__main__")
    stale = [name(page) for page in made.pages() if made.remade(page) != page.read_text(encoding="utf-8")]
    assert stale == [], "python -m docs.made"


def test_the_kernels_it_shows_run() -> None:
    tau = jnp.asarray(np.random.default_rng(0).standard_normal((4, 50)), jnp.float32)
    names = {"tau": tau, "mask": jnp.ones(4, bool), "theta": jnp.zeros((4, 50))}
    (shown,) = blocks(ROOT / "docs" / "reference" / "kernels.md", "python")
    exec(shown, names)
    assert names["theta"].shape == (4, 50)
    assert float(jnp.abs(names["theta"]).max()) > 0
