"""The page about runs: what it says is what the records say, whatever is in them."""

import json
import re
from pathlib import Path

import pytest

from fedpl.compare.statistics import compare
from fedpl.config import Config
from fedpl.errors import UserError
from fedpl.page.film import film
from fedpl.page.found import Found
from fedpl.page.write import page
from fedpl.records.results import Attack, Privacy
from fedpl.report import main as report
from fedpl.tasks.metrics import CLASSIFICATION
from tests.made_up import REGRESSION, record, result
from tests.page.made import NASTY, Elements, made_run, values


def shown(*folders: Path, **options: float) -> Elements:
    return Elements(page([Found.read(folder) for folder in folders], **options))


def assert_alone(text: str) -> None:
    """Nothing is loaded from anywhere, and nothing may be."""
    for tag, attributes in Elements(text).elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "href", "xlink:href", "action", "data", "poster"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|//\w+\.|@import|import\(|fetch\(|XMLHttpRequest", text)
    assert [url for url in re.findall(r"url\((.*?)\)", text) if not url.startswith("#")] == []
    assert "default-src 'none'" in text


@pytest.mark.parametrize(("n", "rounds", "most"), [(50, 20, 1_000_000), (500, 3, 2_000_000)])
def test_the_page_is_one_small_file(n: int, rounds: int, most: int, tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run", values(n), values(n), rounds=rounds)
    text = page([Found.read(folder)])
    assert len(text.encode()) < most
    assert_alone(text)


def test_many_rounds_of_many_clients_stay_below_two_megabytes(tmp_path: Path) -> None:
    """The worst case of the matrices: as many rounds as are kept, nearly as many clients as points."""
    found = Found.read(made_run(tmp_path / "run", values(96), values(96), rounds=45))
    assert len(json.dumps(film(found, range(96)))) < 1_100_000
    assert len(page([found] * 3).encode()) < 2_000_000


def test_numbers_are_those_of_the_summary(tmp_path: Path) -> None:
    found = {"a": 0.75, "b": 0.5, "c": 0.625}
    folder = made_run(tmp_path / "run", found, {"a": 0.5, "b": 0.75, "c": 0.625})
    written = json.loads((folder / "summary.json").read_text())
    page = shown(folder)
    numbers = [a["data-value"] for tag, a in page.elements if tag == "td" and "data-value" in a]
    for model in ("aggregated", "tuned", "majority"):
        assert str(written["mean"][model]["accuracy"]) in numbers
    assert page.row("m, aggregated θ̄")[1:4] == ["62.5", "50.0", "52.5"]
    assert page.row("local only")[1:3] == ["62.5", "50.0"]
    assert page.row("majority class")[1] == "25.0"
    for client, own in written["clients"].items():
        assert f"{100 * own['aggregated']['accuracy']:.1f}" == page.row(client)[3]
    assert page.row("a")[:7] == ["a", "", "50.0", "75.0", "+25.0", "75.0", "+25.0"]


def test_harmed_clients_are_marked_in_words_too(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run", {"a": 0.75, "b": 0.5}, {"a": 0.76, "b": 0.75})
    found = shown(folder)
    marked = {cells[0]: kind for kind, cells in found.rows if len(cells) > 6}
    assert (marked["a"], marked["b"]) == (None, "harmed")
    assert found.row("b")[1] == "harmed: aggregated θ̄ and tuned θ"
    assert "1 of 2" in found.headline()
    assert "more than 2 points below local-only training" in found.text
    assert "2 of 2" in shown(folder, margin=0.0).headline()
    squares = [a for tag, a in found.elements if tag == "rect" and "harmed" in (a["class"] or "")]
    assert len(squares) == 1


def test_less_may_be_better(tmp_path: Path) -> None:
    """Of a loss the worst client has most of it, a fall is a gain, and there are no per cent."""
    folder = made_run(tmp_path / "run", {"a": 0.5, "b": 1.5}, {"a": 2.0, "b": 1.0}, REGRESSION)
    found = shown(folder)
    assert found.row("a")[:5] == ["a", "", "2.000", "0.500", "+1.500"]
    assert found.row("b")[:5] == ["b", "harmed: aggregated θ̄ and tuned θ", "1.000", "1.500", "-0.500"]
    assert found.row("m, aggregated θ̄")[1:3] == ["1.000", "1.500"]
    assert "less is better" in found.text
    assert "more is better" not in found.text
    assert "more than 0.02 above local-only" in found.text


def test_names_are_shown_as_they_are_and_do_nothing(tmp_path: Path) -> None:
    folder = made_run(tmp_path / NASTY.replace("/", ""), {NASTY: 0.5, "b": 0.6}, method=NASTY)
    (folder / "metrics.jsonl").write_text(
        json.dumps(record({NASTY: 0.5, "b": 0.6}, rejected={NASTY: NASTY}, method=NASTY).to_json())
    )
    text = page([Found.read(folder)])
    assert_alone(text)
    found = Elements(text)
    assert [tag for tag, _ in found.elements if tag == "script"] == ["script", "script"]
    assert "\u202e" not in text
    assert "7*7" in found.text
    assert found.row(NASTY.replace("\u202e", r"\u202e"))
    data = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    assert NASTY.replace("\u202e", r"\u202e") in json.loads(data[1])["clients"]


@pytest.mark.parametrize("n", [1, 2])
def test_one_client_and_two(n: int, tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run", values(n), values(n), rounds=1)
    assert report([str(folder)]) == 0
    found = Elements((folder / "report.html").read_text(encoding="utf-8"))
    assert f"0 of {n}" in found.headline()
    edges = [a for tag, a in found.elements if tag == "path" and "edge" in (a["class"] or "")]
    assert len(edges) == n * (n - 1)
    assert ("No client takes from another." in found.text) == (n == 1)


def test_an_unfinished_run_shows_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made_run(tmp_path / "run", {"a": 0.5, "b": 0.75}, finished=False)
    (folder / "state" / "baseline-local").mkdir(parents=True)
    result({"a": 0.5}, CLASSIFICATION).write(folder / "state" / "baseline-local")
    assert report([str(folder)]) == 0
    assert "not finished" in capsys.readouterr().err
    assert not (folder / "plots").exists()
    found = Elements((folder / "report.html").read_text(encoding="utf-8"))
    assert (
        "Unfinished: 2 of 3 rounds done, seed 0; scores are of the validation split in round 2" in found.text
    )
    assert found.row("m, aggregated θ̄")[1:3] == ["62.5", "50.0"]
    assert found.row("b")[2:4] == ["75.0", "75.0"]
    assert sum(tag == "canvas" for tag, _ in found.elements) == 2
    (folder / "metrics.jsonl").unlink()
    assert "Unfinished: 0 of 3 rounds" in shown(folder).text


def test_what_scores_mean_is_never_guessed(tmp_path: Path) -> None:
    """An unfinished run without any result is scored as its task says, if that is known here."""
    folder = made_run(tmp_path / "run", {"a": 0.5, "b": 0.75}, finished=False)
    assert "none of which is known what they mean" in shown(folder).text
    (folder / "config.yaml").write_text(Config().to_yaml(), encoding="utf-8")
    assert shown(folder).row("m, aggregated θ̄")[1:3] == ["62.5", "50.0"]


def test_several_runs_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = made_run(tmp_path / "one", {"a": 0.75, "b": 0.5}, data="d", method="fedbip")
    local = made_run(tmp_path / "two", {"a": 0.5, "b": 0.75}, data="d", method="local", rounds=1)
    with pytest.raises(UserError, match="--output: name the HTML file"):
        report([str(first), str(local)])
    output = tmp_path / "new" / "both.html"
    assert report([str(first), str(local), "--output", str(output)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    text = output.read_text(encoding="utf-8")
    assert_alone(text)
    found = Elements(text)
    assert found.row("")[1:] == ["fedbip (one)", "local (two)"]
    assert found.row("mean accuracy, %, aggregated θ̄")[1:] == ["62.5", "62.5"]
    # The other run is local-only training on the same data and seed.
    assert found.row("harmed clients")[1:] == ["1", "–"]
    assert found.row("rounds")[1:] == ["2", "1"]
    assert "Mind" not in found.text
    other = made_run(tmp_path / "three", {"a": 1.0}, metrics=REGRESSION, data="e")
    found = shown(first, other)
    assert "not on the same data" in found.text
    assert "not scored by the same metrics" in found.text
    assert found.row("mean rmse, aggregated θ̄")[1:] == ["–", "1.000"]
    assert found.row("harmed clients")[1:] == ["–", "–"]


def test_privacy_attacks_and_versions_are_told(tmp_path: Path) -> None:
    folder = made_run(
        tmp_path / "run",
        {"a": 0.75, "b": 0.5},
        privacy=Privacy(clip=1.0, noise_multiplier=2.0, delta=1e-5, epsilon=3.25, epsilon_with_baselines=4.5),
        hostile=Attack(attack="sign_flip", strength=1.0, clients=("b",)),
        versions={"torch": "9.9"},
        data="0123abcd",
    )
    found = shown(folder)
    for said in ("3.25", "4.5", "sign_flip", "'b'", "9.9", "0123abcd", "no local-only training beside"):
        assert said in found.text
    assert found.row("b")[1] == "attacks"


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        report([str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_has_its_table_and_the_runs_of_the_first_seed(tmp_path: Path) -> None:
    folders: dict[str, dict[int, Path]] = {"local": {}, "m": {}}
    for seed in (3, 4):
        for method, value in (("local", 0.5), ("m", 0.75)):
            folder = made_run(tmp_path / f"{method}-s{seed}", {"a": value, "b": 0.5}, method=method)
            folders[method][seed] = folder
    compare(folders, 0.02).write(tmp_path)
    assert report([str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert_alone(text)
    found = Elements(text)
    assert ["m", "tuned θ", "62.5 ± 0.0", "+12.5 ± 0.0"] in [row[1][:4] for row in found.rows]
    assert "m (m-s3)" in text
    assert "m-s4" not in found.text
    with pytest.raises(UserError, match="name a comparison's directory alone"):
        report([str(tmp_path), str(tmp_path / "m-s3"), "--output", str(tmp_path / "b.html")])
