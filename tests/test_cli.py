"""Entry points beside fit: their help is quick, their mistakes are one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpl.cli import make_parser, read, split_options
from fedpl.compare.__main__ import main as compare
from fedpl.errors import UserError
from fedpl.fit import main
from fedpl.presets import names

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("compare", ["--help"], 0),
        ("sweep", ["--help"], 0),
        ("replay", ["--help"], 0),
        ("compare", ["--methods=nothing"], 2),
        ("sweep", ["nowhere.yaml", "--trials=1"], 2),
        ("sweep", [], 2),
        ("replay", [], 2),
        ("replay", ["/nowhere"], 2),
        ("sweep", ["server_grid", "--replay=/nowhere"], 2),
        ("fit", ["--model.path=/nowhere"], 2),
        ("fit", ["--model.path=package:nothing_of_this_name"], 2),
        ("fit", ["--resume=/nowhere"], 2),
    ],
)
def test_answers_without_importing_anything_heavy(module: str, arguments: list[str], code: int) -> None:
    module = f"fedpl.{module}" if module in ("fit", "report") else f"fedpl.{module}.__main__"
    script = (
        "import sys, atexit\n"
        "heavy = {'torch', 'jax', 'lightning', 'transformers', 'peft', 'wandb', 'datasets', 'optuna'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules))))\n"
        f"from {module} import main\n"
        "from fedpl.cli import run_main\n"
        "run_main(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "HEAVY []" in done.stdout
    assert done.stderr.count("\n") == (code == 2)


def test_mistakes_are_raised_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, message in ((["--roundz=1"], "did you mean 'rounds'"), (["--rounds=0"], "at least 1")):
        with pytest.raises(UserError, match=message):
            read(make_parser("fit", ""), argv)
    assert capsys.readouterr().err == ""


def test_own_options_are_told_from_those_of_runs() -> None:
    def add(parser: object) -> None:
        parser.add_argument("--methods")

    own, rest = split_options("p", "", add, ["--method", "x", "--methods=a", "--rounds", "3"])
    assert own.methods == "a"
    assert rest == ["--method", "x", "--rounds", "3"]
    with pytest.raises(UserError, match="expected one argument"):
        split_options("p", "", add, ["--methods"])


def test_the_help_begins_with_what_is_wanted_most(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    first = capsys.readouterr().out.splitlines()[:45]
    for key in ("method", "rounds", "data", "model.path", "client.lr", "baselines"):
        assert any(line.startswith(f"  --{key} ") for line in first), key
    assert sum(line.startswith("  python -m fedpl.fit ") for line in first) == 3


@pytest.mark.parametrize("program", [main, compare])
def test_methods_are_listed(program: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        program(["--list_methods"])
    assert end.value.code == 0
    listed = capsys.readouterr().out.splitlines()
    said = {line.split()[0]: line for line in listed if not line.startswith(" ")}
    assert list(said) == names("method")
    assert all(len(line.split()) > 2 for line in said.values())
