import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fedpl.cli import make_parser, parse
from fedpl.config import Config
from fedpl.problems import problems
from fedpl.settings import plain

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
RUNNABLE = [path for path in CONFIGS if "sweep" not in path.parts]

NEED_A_TABLE = {
    *("text_files", "instructions", "partitioned"),
    *("clinc_domains", "sentence_tasks", "vader_domains", "vader_regression"),
    *("flan8", "flan8_small", "flan_conventions"),
}
NEED_IMAGES = {"pacs", "office_home"}
NEED_A_PACKAGE = {"flan8_small", "flan_conventions"}  # with a model, and may not be installed


def read(*argv: str) -> Config:
    return parse(make_parser("fit", ""), argv)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as leaving:
        read(*argv)
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_there_are_configurations() -> None:
    assert len(RUNNABLE) >= 8


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_every_shipped_configuration_is_valid(path: Path, small_table: Path) -> None:
    extra = [f"--data.paths=[{small_table}]"] if path.stem in NEED_A_TABLE else []
    extra += [f"--data.path={small_table.parent}"] if path.stem in NEED_IMAGES else []
    if path.stem in NEED_A_PACKAGE:
        extra.append(f"--model.path={Config().model.path}")
    config = read(f"--config={path}", *extra)
    assert problems(config) == []
    first = path.read_text().splitlines()[0]
    relative = path.relative_to(ROOT).as_posix()
    assert first.startswith("# python -m fedpl.fit"), "the first line is the command"
    assert relative == "configs/default.yaml" or relative in first


def test_the_default_file_holds_exactly_the_defaults() -> None:
    parser = make_parser("fit", "")
    written = yaml.safe_load((ROOT / "configs/default.yaml").read_text())
    assert written == plain(Config())
    dumped = yaml.safe_load(parser.dump(parser.get_defaults(), skip_unset=False))
    assert {key: value for key, value in dumped.items() if key != "method"} == written
    assert read(f"--config={ROOT}/configs/default.yaml") == Config()


def test_later_files_and_overrides_win(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rounds: 7\nclient: {lr: 0.5, epochs: 9}\n")
    (tmp_path / "b.yaml").write_text("client: {lr: 0.25}\n")
    config = read(f"--config={tmp_path}/a.yaml", f"--config={tmp_path}/b.yaml", "--client.epochs=3")
    assert (config.rounds, config.client.lr, config.client.epochs) == (7, 0.25, 3)


def test_plugins_by_class_path_with_dotted_settings() -> None:
    config = read("--aggregator.weighting=fedpl.server.FedBip", "--aggregator.weighting.negatives=clip")
    assert config.aggregator.weighting.negatives == "clip"


@pytest.mark.parametrize(
    ("argument", "named", "suggested"),
    [
        ("--roundz=3", "roundz", "rounds"),
        ("--client.lrr=1", "client.lrr", "client.lr"),
        ("--aggregator.weighting.flor=1", "flor", "floor"),
        ("--aggregator.weighting=fedpl.server.FedBib", "FedBib", "fedpl.server.FedBip"),
        ("--aggregator.combine=fedpl.server.FactorWize", "FactorWize", "fedpl.server.FactorWise"),
        ("--aggregator.weighting=fedpl.server.Cluster", "Cluster", "fedpl.server.Clusters"),
        ("--lr=1", "lr", "client.lr"),
        ("--client.learning_rate=1", "client.learning_rate", "client.lr"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest(
    argument: str, named: str, suggested: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, argument)
    assert message.count("\n") == 1
    assert named in message
    assert f"did you mean '{suggested}" in message or f".{suggested}'" in message


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--data.paths=[x.csv]", "data.paths is an option of fedpl.data.TextFiles: choose that by --data"),
        ("--aggregator.weighting.max_clusters=3", "an option of fedpl.server.Clusters: choose that by"),
        (
            "--method=fedbip_g --aggregator.weighting.floor=0.3",
            "Option 'aggregator.weighting.floor' is not accepted; aggregator.weighting.floor is an option of "
            "fedpl.server.FedBip",
        ),
        ("--aggregator.receive.models=3", "aggregator.receive.models is an option of fedpl.server.BestOf"),
    ],
)
def test_an_option_of_another_class_names_the_class(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *argument.split())


def test_what_is_like_nothing_gets_no_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" not in refused(capsys, "--version")


def test_a_misspelt_key_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("client: {lrr: 1}\n")
    assert "did you mean 'client.lr'" in refused(capsys, f"--config={path}")
    path.write_text("roundz: 1\n")
    assert "did you mean 'rounds'" in refused(capsys, f"--config={path}")


def test_a_wrong_type_names_the_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert "rounds" in refused(capsys, "--rounds=abc")
    assert "model.pooling" in refused(capsys, "--model.pooling=maxx")


def test_all_problems_are_reported_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.txt").write_text("")
    message = refused(
        capsys,
        "--rounds=0",
        "--client.lr=-1",
        "--aggregator.weighting.floor=0",
        "--data.topics=[nowhere]",
        f"--run_dir={tmp_path}",
    )
    for key in ("rounds", "client.lr", "aggregator.weighting.floor", "data.topics", "run_dir"):
        assert f"\n  {key}: " in message


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["--print_config"], 0), (["--roundz=1"], 2)]
)
def test_answers_without_importing_anything_heavy(arguments: list[str], code: int) -> None:
    """Exit codes of the real program; seconds are not asserted, but what would cost them is."""
    script = (
        "import sys, atexit\n"
        "heavy = {'torch', 'jax', 'lightning', 'transformers', 'peft', 'wandb', 'datasets'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules))))\n"
        "from fedpl.fit import main\n"
        "from fedpl.endings import run_main\n"
        "run_main(lambda: main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert "HEAVY []" in done.stdout


def test_help_has_text_for_every_field() -> None:
    parser = make_parser("fit", "")
    without = [
        action.dest
        for action in parser._actions
        if not action.help or action.help.strip() in ("", "(type: str)")
    ]
    assert without == []
    assert "How a client fine-tunes" in parser.format_help()


@pytest.mark.parametrize("name", ["debug.yaml", "method/fedbip_g.yaml"])
def test_a_configuration_cut_anywhere_is_read_or_refused(name: str, tmp_path: Path) -> None:
    """Never a traceback: a configuration, or exit code 2."""
    whole = (ROOT / "configs" / name).read_text()
    path = tmp_path / "cut.yaml"
    parser = make_parser("fit", "")
    for length in range(whole.index("\nname:" if "\nname:" in whole else "\nrounds:"), len(whole)):
        path.write_text(whole[:length])
        refused = None
        try:
            config = parse(parser, [f"--config={path}"])
        except SystemExit as leaving:
            refused = leaving.code
        assert refused == 2 or problems(config) == []
