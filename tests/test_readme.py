"""What the README says is what the repository does."""

import io
import re
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import fedpl
from fedpl.cli import make_parser, read
from fedpl.fit import main
from fedpl.records.results import Models, Statistics
from fedpl.records.scores import Summary
from fedpl.terminal import print_table
from fedpl.tracking.progress import closing_table
from tests.made_up import result, summary

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


METHOD = (ROOT / "docs" / "howto" / "method.md").read_text(encoding="utf-8")


def block(marker: str, page: str = README) -> str:
    """The code block that follows a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert found, marker
    return found.group(1)


@pytest.mark.parametrize("marker", ["main job", "tests"])
def test_ci_runs_the_very_commands(marker: str) -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert f"command_of '{marker}'" in script
    assert "constraints.txt" in block(marker)
    assert len(block(marker).strip().splitlines()) == 1


def test_files_it_names_are_there() -> None:
    paths = [
        path
        for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
        for path in re.findall(
            r"`((?:configs|docs|kernels|fedpl|benchmarks|tests)/[a-z\d_./-]+\.(?:yaml|py|json|png|md))`",
            page.read_text(encoding="utf-8"),
        )
    ]
    assert len(paths) >= 15
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_nothing_is_left_to_fill_in() -> None:
    assert "@@" not in README


def test_the_citation_is_of_this_version() -> None:
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert about["version"] == fedpl.__version__
    (paper,) = about["references"]
    assert paper["title"] in README
    assert f"{paper['start']}--{paper['end']}" in README


def test_the_method_it_adds_runs(
    tmp_path: Path, small_run: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_rules.py").write_text(block("method", METHOD))
    monkeypatch.syspath_prepend(tmp_path)
    rule = ["--name=sharper", "--aggregator.weighting=my_rules.Sharper", "--aggregator.weighting.power=3"]
    assert main([*small_run, *rule, "--baselines=[]", f"--run_dir={tmp_path / 'run'}"]) == 0
    assert "power: 3.0" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_python_it_shows_runs(tmp_path: Path, small_run: list[str]) -> None:
    config = read(make_parser("fit", ""), [*small_run, "--method=fedbip_l", f"--run_dir={tmp_path / 'run'}"])
    shown = 'fedpl.Config.of("fedbip_l", rounds=3, client__lr=1e-3)'
    code = block("python")
    assert shown in code
    names = {"config_of_the_test": config}
    exec(code.replace(shown, "config_of_the_test").replace("united-a", "one-a"), names)
    assert list(names["run"].rounds.index) == list(range(1, config.rounds + 1))


def test_constraints_satisfy_the_declared_ranges() -> None:
    """An installed environment under the constraints must not contradict pyproject.toml."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    flower = optional.pop("flower")  # in an environment of its own
    for file, declared in (
        ("constraints.txt", [*project["dependencies"], *chain(*optional.values())]),
        ("constraints-flower.txt", [*project["dependencies"], *flower]),
    ):
        pinned = {}
        for line in (ROOT / file).read_text().splitlines():
            if line and not line.startswith("#"):
                name, version = line.split("==")
                pinned[name.lower().replace("_", "-")] = version
        for requirement in map(Requirement, declared):
            assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement


QUICKSTART = (ROOT / "docs" / "start" / "quickstart.md").read_text(encoding="utf-8")
TABLE = re.compile(r"^ +Test accuracy.*?^└[^\n]*\n", re.DOTALL | re.MULTILINE)


def cells(text: str) -> dict[str, list[str]]:
    """The rows of a printed table, by their first cell."""
    lines = (line.strip("│").split("│") for line in text.splitlines() if line.startswith("│"))
    return {name.strip(): [one.strip() for one in others] for name, *others in lines}


def printed(shown: str) -> str:
    """What a run prints at its end whose clients have the scores of a table, on 80 tests each."""
    clients = list(cells(shown).items())[:12]
    local, average, aggregated, tuned, floor = (
        result({name: round(0.8 * float(own[place])) / 80 for name, own in clients}) for place in range(5)
    )
    values = {name: own.aggregated["accuracy"] for name, own in aggregated.clients.items() if own.aggregated}
    found = summary(values, baselines={"local": local, "fedavg": average})

    def beside(own: Models, after: Models, blind: Models) -> Models:
        return replace(own, tuned=after.aggregated, majority=blind.aggregated)

    both = {
        name: replace(own, scores=beside(own.scores, tuned.clients[name], floor.clients[name]))
        for name, own in found.clients.items()
    }
    over = {
        name: beside(*(getattr(one, name) for one in (found.test, tuned.test, floor.test)))
        for name in Summary._fields
    }
    found = replace(found, method="fedbip", rounds=5, clients=both, test=Statistics(**over))
    console = Console(file=io.StringIO(), width=80)
    print_table(console, closing_table(found))
    return console.file.getvalue()


def test_the_closing_table_it_prints_is_what_a_run_prints() -> None:
    """The layout, and what is said of all clients, for these scores; macro-F1 does not follow of them."""
    (shown,) = TABLE.findall(QUICKSTART)
    said = printed(shown)
    without = [[line for line in text.splitlines() if "macro-F1" not in line] for text in (said, shown)]
    assert without[0] == without[1]
    short = cells(README)
    assert {name: short[name] for name in ("mean", "worst")} == {
        name: cells(shown)[name] for name in ("mean", "worst")
    }
