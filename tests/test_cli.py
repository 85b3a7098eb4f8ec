"""Entry points beside fit: their help is quick, their mistakes are one line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedpl.api import Run
from fedpl.cli import make_parser, read, split_options
from fedpl.compare.__main__ import main as compare
from fedpl.errors import UserError
from fedpl.export import main as export
from fedpl.fit import main
from fedpl.onboard.__main__ import main as onboard
from fedpl.presets import names
from fedpl.replay.__main__ import main as replay
from fedpl.report import main as report
from fedpl.sweep.__main__ import main as sweep
from tests.conftest import small_rows, write_csv

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
        "from fedpl.endings import run_main\n"
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


@pytest.mark.parametrize("file", [["--config", "debug"], ["--config=debug"]])
def test_options_win_over_files_wherever_they_stand(file: list[str]) -> None:
    options = ["--rounds", "7", "--run_dir=mine"]
    before, after = (read(make_parser("fit", ""), argv) for argv in ([*options, *file], [*file, *options]))
    assert before == after
    assert (before.rounds, str(before.run_dir)) == (7, "mine")
    assert before.data == read(make_parser("fit", ""), file).data


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


def test_a_line_for_programs(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    main([*small_run, "--rounds=1", f"--run_dir={folder}", "--baselines=[local]", "--json"])
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    found = json.loads(line)
    assert (found["run_dir"], found["rounds"]) == (str(folder), 1)
    assert found["test/aggregated/mean/accuracy"] == Run.open(folder).summary.test.mean.aggregated["accuracy"]
    assert "baselines/local/test/aggregated/mean/accuracy" in found
    assert "run directory: " in said.err
    assert said.err.startswith("fedpl: fedbip: loads libraries, data and ")
    assert (folder / "report.html").is_file()
    quiet = [*small_run, "--rounds=1", f"--run_dir={tmp_path / 'quiet'}", "--baselines=[]", "--quiet"]
    main([*quiet, "--tracking.plots=false"])
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "quiet" / "report.html").exists()


def test_every_command_that_says_what_it_made_says_it_to_programs(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line of JSON, which is what the files hold; with --quiet nothing else is printed anywhere."""
    folder, table = str(tmp_path / "run"), str(tmp_path / "new.csv")
    write_csv(Path(table), small_rows(("new-a",)))
    settings = ["--rounds=1", "--baselines=[]", "--store_vectors=true", "--tracking.plots=false"]

    def said(program: Callable[[list[str]], int], *words: str) -> dict[str, Any]:
        assert program([*words, "--json", "--quiet"]) == 0
        (line,), err = (said := capsys.readouterr()).out.splitlines(), said.err
        assert err == ""
        found: dict[str, Any] = json.loads(line)
        return found

    before = said(main, *small_run, *settings, "--dry_run")
    assert before["clients"]["one-a"] == {"train": 16, "validation": 4, "test": 4}
    said(main, *small_run, *settings, f"--run_dir={folder}")
    found = said(replay, folder, "--aggregator.weighting=Softmax", "--reading=chain")
    assert read_json(found.pop("replay")) == found
    assert [one["rule"] for one in found["readings"]] == ["fedbip", "as given"]
    found = said(onboard, folder, "--data", table, "--name=new-a", "--columns", "split=split")
    assert found["newcomers"] == [read_json(f"{folder}/newcomers/new-a/newcomer.json")]
    found = said(export, folder, "--client=one-a")
    assert found["card"] == read_json(f"{found['written'][0]}/fedpl.json")
    assert len(said(export, folder, "--csv")["written"]) == 2
    found = said(report, folder)
    assert all(Path(one).is_file() for one in (found["report"], *found["pictures"]))
    out = str(tmp_path / "sweep")
    found = said(sweep, str(grid(tmp_path)), f"--replay={folder}", f"--out={out}")
    assert found.pop("out") == out
    assert read_json(f"{out}/sweep.json") == found


def grid(folder: Path) -> Path:
    """A sweep file of two trials."""
    file = folder / "grid.yaml"
    file.write_text(
        "program: fedpl/fit.py\nmethod: grid\n"
        "metric: {name: validation/aggregated/mean/accuracy, goal: maximize}\n"
        "parameters: {aggregator.weighting.negatives: {values: [keep, clip]}}\n"
    )
    return file


def read_json(path: str) -> Any:
    return json.loads(Path(path).read_text())


@pytest.mark.parametrize("program", ["compare", "sweep"])
def test_an_interruption_of_many_runs_says_how_all_go_on(
    program: str, small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the run that was under way says of itself."""

    def interrupted(*_: Any, **__: Any) -> None:
        cause = KeyboardInterrupt()
        cause.add_note("go on with: python -m fedpl.fit --resume ...")
        raise cause

    out = tmp_path / "out"
    place = "compare.execute.run_missing" if program == "compare" else "sweep.session.run_sweep"
    monkeypatch.setattr(f"fedpl.{place}", interrupted)
    words = ["--methods=local"] if program == "compare" else [str(grid(tmp_path)), "--trials=1"]
    with pytest.raises(KeyboardInterrupt) as found:
        {"compare": compare, "sweep": sweep}[program]([*words, *small_run, f"--out={out}"])
    assert found.value.__notes__ == [f"go on with the same command and --out {out}"]


def test_who_stops_reading_ends_a_command_without_a_traceback(tmp_path: Path) -> None:
    script = "from fedpl.endings import run_main\nrun_main(lambda: print('a line\\n' * 100_000) or 0)"
    command = f'{sys.executable} -c "{script}" | head -n 1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.split("\n") == ["a line", "141", ""]
    assert done.stderr == ""
