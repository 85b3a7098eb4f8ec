"""What the README says is what the repository does."""

import re
from itertools import chain
from pathlib import Path

import pytest
import yaml

import fedpl
from fedpl.cli import make_parser, read
from fedpl.fit import main

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

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name.lower().replace("_", "-")] = version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    for requirement in map(Requirement, declared):
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), requirement
