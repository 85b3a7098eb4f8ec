"""Clients may be called anything: names of folders, markup, formulas, line breaks."""

import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import fedpl
from fedpl.files import quoted
from fedpl.fit import main
from fedpl.pictures.clients import client_scores
from fedpl.pictures.comparison_plot import method_dots
from fedpl.pictures.plots import heat_map, learning_curves
from fedpl.records.comparison import Comparison
from fedpl.report import main as report
from fedpl.terminal import print_table
from fedpl.tracking.progress import Display, closing_table
from tests.conftest import small_rows, write_csv
from tests.made_up import record, result, summary

LONG = "ж" * 90
IDS = (LONG, LONG + "ж", r"$\foo$", "[/deleted]", "[deleted]", ":warning:", "two\nlines", "../up", "\x1b[2J")
SHOWN = (r"$\foo$", "[/deleted]", "[deleted]", ":warning:", r"two\nlines", "../up", r"\x1b[2J")


def test_folders_of_different_clients_differ_and_can_be_made(tmp_path: Path) -> None:
    ids = [
        *IDS,
        "a" * 200,
        "a" * 201,
        "a" * 400,
        quoted(LONG),
        quoted("a" * 400),
        "a" * 100 + "%~",
        ".",
        "..",
    ]
    names = [quoted(client) for client in ids]
    assert len(set(names)) == len(set(ids))
    for name in names:
        (tmp_path / name).mkdir()
    assert len(list(tmp_path.iterdir())) == len(set(ids))
    assert quoted("united-a") == "united-a"
    assert quoted("a" * 255) == "a" * 255


@pytest.fixture(scope="module")
def finished(small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        row | {"client": client, "text": row["text"].replace(client, "somebody")}
        for client in IDS
        for row in small_rows((client,), 12)
    ]
    path = write_csv(tmp_path_factory.mktemp("ids") / "ids.csv", rows)
    folder = tmp_path_factory.mktemp("[runs]") / "[/first] $run$"
    words = [f"--data.paths=[{path}]", "--rounds=1", "--baselines=[]", "--client.epochs=1"]
    assert main([*small_run, *words, f"--run_dir={folder}"]) == 0
    return folder


def test_a_run_with_any_names_ends_with_adapters_table_and_pictures(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished
    run = fedpl.Run.open(folder)
    assert set(run.summary.clients) == set(IDS)
    assert len(list((folder / "adapters").iterdir())) == len(IDS)
    for client in (LONG, "[/deleted]"):
        assert fedpl.load(run, client).predict(["the crew was great"])[0] in ("no", "yes")
    assert {path.name for path in (folder / "plots").iterdir()} == {
        "similarity.png",
        "weights.png",
        "clients.png",
        "curves.png",
    }
    assert main(["--resume", str(folder), "--rounds=2"]) == 0
    said = capsys.readouterr().out
    for name in SHOWN:
        assert re.search(rf"│ {re.escape(name)} +│", said), name
    assert "\x1b" not in said
    assert f"fedpl: {folder} goes on" in said.replace("\n", "")
    assert report([str(folder)]) == 0


def test_every_picture_shows_names_as_they_are(tmp_path: Path) -> None:
    values = dict.fromkeys(IDS, 0.5)
    found = summary(values, baselines={r"$\bar$": result(values)})
    figures = [
        heat_map(np.eye(len(IDS)), IDS, range(len(IDS)), r"$\foo$"),
        client_scores(found),
        learning_curves([(1, record(values).validation)], r"$\foo$", found.primary),
    ]
    for i, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{i}.png")
    for figure in figures[:2]:
        ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
        assert set(SHOWN) <= set(ticks)
        assert max(map(len, ticks)) < 30


def test_the_picture_of_a_comparison_shows_names_as_they_are(tmp_path: Path) -> None:
    from fedpl.compare.statistics import compare
    from fedpl.compare.tables import rich_table

    folders = {}
    for name in (r"$\foo$", "[/deleted]"):
        (tmp_path / quoted(name)).mkdir()
        summary({"a": 0.5}).write(tmp_path / quoted(name))
        folders[name] = {0: tmp_path / quoted(name)}
    comparison: Comparison = compare(folders, 0.02)
    method_dots(comparison).savefig(tmp_path / "dots.png")
    console = Console(record=True, width=120)
    console.print(rich_table(comparison))
    assert "[/deleted]" in console.export_text()


def test_progress_on_a_terminal_shows_a_methods_name_as_it_is() -> None:
    console = Console(force_terminal=True, width=100, record=True)
    with Display(console, enabled=True) as display:
        display.begin("[/bold]", 2, 3)
        display.line("[deleted] :warning:")
    said = console.export_text()
    assert "[deleted] :warning:" in said
    assert "[/bold]" in said


def test_the_closing_table_folds_nothing_away() -> None:
    console = Console(record=True, width=200)
    print_table(console, closing_table(summary(dict.fromkeys(IDS, 0.5))))
    said = console.export_text()
    assert all(name in said for name in SHOWN)
    assert LONG not in said
