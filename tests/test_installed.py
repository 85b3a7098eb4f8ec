"""Installed means installed: the wheel, away from the checkout."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds, as pip would put it."""
    work = tmp_path_factory.mktemp("wheel")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "fedpl", "kernels", "configs"):
        (source / name).symlink_to(ROOT / name)
    copied = work / "copy"
    subprocess.run(["cp", "-rL", str(source), str(copied)], check=True)  # a build leaves files behind
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(work),
        ".",
    ]
    done = subprocess.run(command, cwd=copied, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = work.glob("fedpl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(work / "site")
    return work / "site"


def fedpl(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed package, in a folder that holds nothing of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    program = (
        "import fedpl, sys, pathlib; "
        f"assert pathlib.Path(fedpl.__file__).is_relative_to({str(site)!r}), fedpl.__file__; "
        "from fedpl.__main__ import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_list_of_packages_is_whole() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    roots = (ROOT, ROOT / "kernels")
    there = {
        ".".join(path.parent.relative_to(root).parts)
        for root in roots
        for top in ("fedpl", "fedpl_kernels")
        for path in (root / top).rglob("__init__.py")
    }
    assert listed == there | {"fedpl.configs"}


def test_the_wheel_holds_what_ships(site: Path) -> None:
    shipped = {path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.yaml")}
    inside = site / "fedpl" / "configs"
    assert {path.relative_to(inside) for path in inside.rglob("*.yaml")} == shipped
    assert (site / "fedpl" / "py.typed").is_file()
    page = {path.suffix for path in (site / "fedpl" / "page").iterdir()}
    assert page >= {".css", ".html", ".js"}
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"fedpl", "fedpl_kernels"}
    (scripts,) = site.glob("*.dist-info/entry_points.txt")
    assert "fedpl = fedpl.__main__:main" in scripts.read_text()


def test_fit_compare_and_replay_from_an_empty_folder(
    site: Path, small_run: list[str], tmp_path: Path
) -> None:
    lean = [*small_run, "--rounds=1", "--tracking.plots=false"]
    done = fedpl(site, tmp_path, "fit", *lean, "--method=fedbip_l", "--store_vectors=true", "--run_dir=run")
    assert done.returncode == 0, done.stderr
    assert "fedbip_l on cpu" in done.stdout
    done = fedpl(site, tmp_path, "replay", "run", "--methods=fedavg,fedbip_g")
    assert done.returncode == 0, done.stderr
    assert "fedbip_g" in done.stdout
    words = ["--methods=local,ditto", "--seeds=0", "--out=comparison", *lean]
    done = fedpl(site, tmp_path, "compare", *words)
    assert done.returncode == 0, done.stderr
    assert "ditto" in (tmp_path / "comparison" / "comparison.md").read_text()


def test_shipped_files_are_found_by_name(site: Path, tmp_path: Path) -> None:
    for name in ("debug", "configs/debug.yaml", "partial", "experiment/partial"):
        done = fedpl(site, tmp_path, "fit", "--config", name, "--print_config")
        assert done.returncode == 0, done.stderr
        assert f"rounds: {2 if 'debug' in name else 10}\n" in done.stdout
    done = fedpl(site, tmp_path, "fit", "--config", "debugg")
    assert done.returncode == 2
    assert "did you mean 'debug'" in done.stderr


def test_the_program_explains_itself(site: Path, tmp_path: Path) -> None:
    for words in ([], ["--help"]):
        done = fedpl(site, tmp_path, *words)
        assert done.returncode == 0
        assert "compare" in done.stdout
    assert fedpl(site, tmp_path, "--version").stdout == "0.1.0\n"
    done = fedpl(site, tmp_path, "fitt")
    assert (done.returncode, done.stderr) == (
        2,
        "error: there is no command 'fitt'; there are fit, compare, replay, site, onboard, sweep, predict, "
        "export, report\n",
    )
