"""Comparisons on a small model and a small table: what they equal, what they keep, what they refuse."""

import csv
import json
import shutil
from pathlib import Path

import pytest

import fedpl.model.base as models
from fedpl.compare.__main__ import main
from fedpl.compare.execute import RoundLines
from fedpl.compare.latex import as_latex
from fedpl.compare.plan import plan
from fedpl.compare.statistics import compare, harmed
from fedpl.compare.tables import as_csv, as_markdown, caption, rich_table
from fedpl.errors import UserError
from fedpl.fit import main as fit
from fedpl.records.comparison import Comparison, Spread
from fedpl.records.rounds import RoundRecord
from fedpl.tasks.metrics import CLASSIFICATION
from fedpl.training.worker import Worker
from tests.made_up import REGRESSION
from tests.made_up import summary as made_up

METHODS = ("local", "fedavg", "fedbip")


@pytest.fixture(scope="module")
def arguments(small_run: list[str]) -> list[str]:
    return [*small_run, "--client.lr=1e-2", "--tracking.plots=false"]


@pytest.fixture(scope="module")
def counts() -> dict[str, int]:
    return {"models": 0, "first rounds": 0}


@pytest.fixture(scope="module")
def finished(arguments: list[str], counts: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's directory; how often a model was loaded and a first round trained is counted."""
    out = tmp_path_factory.mktemp("comparisons") / "small"
    load, train = models.load_base, Worker.fit

    def counting_load(*args: object) -> object:
        counts["models"] += 1
        return load(*args)

    def counting_train(self: Worker, work: list, round: int, *rest: object) -> object:
        counts["first rounds"] += round == 1 and len(work) > 0
        return train(self, work, round, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_base", counting_load)
        patch.setattr(Worker, "fit", counting_train)
        main([f"--methods={','.join(METHODS)}", "--seeds=0,1", f"--out={out}", *arguments])
    return out


def result(out: Path) -> dict:
    return json.loads((out / "comparison.json").read_text())


def summary(folder: Path) -> dict:
    content = json.loads((folder / "summary.json").read_text())
    del content["seconds"]
    return content


def test_every_method_and_seed_has_a_run_directory(finished: Path) -> None:
    folders = {path.name for path in finished.iterdir() if path.is_dir()}
    assert folders == {f"{method}-s{seed}" for method in METHODS for seed in (0, 1)}
    files = {path.name for path in finished.iterdir() if path.is_file()}
    pictures = {f"comparison{part}.{kind}" for part in ("", "-rounds") for kind in ("png", "pdf", "svg")}
    texts = {f"comparison.{ending}" for ending in ("json", "csv", "tex", "md")}
    assert files == pictures | texts | {"comparison-pairs.csv"}


def test_one_model_and_one_first_round_per_seed(finished: Path, counts: dict[str, int]) -> None:
    assert counts == {"models": 1, "first rounds": 2}


@pytest.mark.parametrize(("method", "seed"), [("fedbip", 1), ("local", 0)])
def test_a_run_of_a_comparison_is_the_run_that_fit_gives(
    method: str, seed: int, finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    own = [f"--config=configs/method/{method}.yaml", f"--seed={seed}", "--baselines=[]"]
    fit([*own, *arguments, f"--run_dir={tmp_path / 'run'}"])
    assert summary(finished / f"{method}-s{seed}") == summary(tmp_path / "run")


def test_numbers_are_those_of_the_runs(finished: Path) -> None:
    content = result(finished)
    for method in METHODS:
        runs = [summary(finished / f"{method}-s{seed}") for seed in (0, 1)]
        means = [run["mean"]["aggregated"]["accuracy"] for run in runs]
        entry = content["methods"][method]["aggregated"]["accuracy"]
        assert entry["mean"] == pytest.approx(sum(means) / 2)
        assert entry["sd"] == pytest.approx(abs(means[0] - means[1]) / 2**0.5)
        traffic = sum(runs[0]["bytes"].values())
        assert content["methods"][method]["bytes"]["mean"] == pytest.approx(traffic)
        alone = [summary(finished / f"local-s{seed}") for seed in (0, 1)]
        gains = [mean - run["mean"]["aggregated"]["accuracy"] for mean, run in zip(means, alone, strict=True)]
        gain = content["methods"][method]["aggregated"]["gain"]
        assert gain["mean"] == pytest.approx(sum(gains) / 2)
        assert gain["sd"] == pytest.approx(abs(gains[0] - gains[1]) / 2**0.5)
    assert content["methods"]["local"]["aggregated"]["harmed"] == []


def test_the_csv_has_a_line_per_run_and_model(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "comparison.csv").open()))
    assert len(rows) == len(METHODS) * 2 * 2
    row = next(r for r in rows if (r["method"], r["seed"], r["model"]) == ("fedavg", "1", "tuned"))
    worst = summary(finished / "fedavg-s1")["worst"]["tuned"]["accuracy"]
    assert float(row["worst"]) == worst


def test_the_same_command_runs_nothing_again_but_what_is_unfinished(
    finished: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / finished.name  # W&B's group, a setting of each run, is named after it
    shutil.copytree(finished, out)
    before = summary(out / "fedbip-s0")
    (out / "fedbip-s0" / "summary.json").unlink()
    kept = (out / "fedavg-s1" / "metrics.jsonl").stat().st_mtime_ns
    main([f"--methods={','.join(METHODS)}", "--seeds=0,1", f"--out={out}", *arguments])
    assert (out / "fedavg-s1" / "metrics.jsonl").stat().st_mtime_ns == kept
    assert summary(out / "fedbip-s0") == before
    assert capsys.readouterr().out.count("finished before") == 5


def test_a_comparison_that_was_cut_off_goes_on_in_the_middle_of_a_run(
    finished: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / finished.name
    call = ["--methods=local,fedavg", "--seeds=1", f"--out={out}", *arguments]
    heard: list[tuple[str, int]] = []

    def listen(self: RoundLines, record: RoundRecord, result: object) -> None:
        heard.append((record.method, record.round))
        if heard[-1] == ("fedavg", 2) and len(heard) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(RoundLines, "round", listen)
    with pytest.raises(KeyboardInterrupt):
        main(call)
    assert not (out / "fedavg-s1" / "summary.json").exists()
    main(call)
    assert heard[4:] == [("fedavg", 2)]
    for run in ("local-s1", "fedavg-s1"):
        assert summary(out / run) == summary(finished / run)


def test_local_is_added_where_gain_and_harm_need_it(
    finished: Path, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / finished.name
    shutil.copytree(finished, out)
    call = ["--methods=fedavg", "--seeds=0,1", f"--out={out}", "--columns=macro_f1,gain,interval,rank"]
    main([*call, *arguments])
    said = capsys.readouterr().out
    assert said.startswith("local is run too")
    assert list(result(out)["methods"]) == ["local", "fedavg"]
    latex = (out / "comparison.tex").read_text()
    assert r"method &  & macro-F1 & gain & interval & rank \\" in latex
    assert "LoRA of rank" in latex
    assert "MB: traffic" not in latex
    main([*call, *arguments, "--without_local"])
    assert "local is run too" not in capsys.readouterr().out
    assert result(out)["methods"]["fedavg"]["aggregated"]["gain"] is None


def test_a_directory_of_other_runs_is_left_alone(finished: Path, arguments: list[str]) -> None:
    call = ["--methods=local", "--seeds=0", f"--out={finished}", *arguments]
    with pytest.raises(UserError, match=r"local-s0 was run with another client\.lr"):
        main([*call, "--client.lr=0.5"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--methods=local,fedbib"], "did you mean 'fedbip'"),
        (["--methods=nowhere.yaml"], "no such file"),
        (["--methods=local,local"], "name each once"),
        (["--seeds=0,0"], "different whole numbers"),
        (["--seeds=a"], "different whole numbers"),
        (["--margin=2"], "--margin"),
        (["--seed=1"], "use --seeds"),
        (["--baselines=[]"], "use --methods"),
        (["--client.lrr=1"], "did you mean 'client.lr'"),
        (["--client.lr=-1"], "client.lr: must be positive"),
        (["--method", "fedbip"], "use --methods"),
        (["--columns=accuracy,speed"], "there is no speed; there are accuracy, macro_f1, gain"),
    ],
)
def test_mistakes_are_found_before_any_work(
    extra: list[str], message: str, arguments: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message):
        main([f"--out={out}", *arguments, *extra])
    assert not out.exists()


def test_harm_is_a_loss_beyond_the_margin_on_average_over_seeds() -> None:
    local = [made_up({"a": 0.8, "b": 0.8, "c": 0.8}), made_up({"a": 0.8, "b": 0.8, "c": 0.8})]
    other = [made_up({"a": 0.7, "b": 0.7, "c": 0.78}), made_up({"a": 0.9, "b": 0.8, "c": 0.78})]
    assert harmed(other, local, "aggregated", 0.02) == ("b",)
    assert harmed(other, local, "aggregated", 0.01) == ("b", "c")


def test_whoever_has_no_score_in_a_seed_is_not_counted() -> None:
    local, other = [made_up({"a": 0.8, "b": 0.8})], [made_up({"a": 0.1, "b": 0.1}, tuned=["b"])]
    assert harmed(other, local, "tuned", 0.02) == ("b",)


def test_of_an_error_less_is_better(tmp_path: Path) -> None:
    """Harm, gain, the worst client and the worst tenth of a metric that is better when it is lower."""
    folders: dict[str, dict[int, Path]] = {}
    errors = {"local": {"a": 1.0, "b": 2.0}, "good": {"a": 0.5, "b": 1.0}, "bad": {"a": 1.1, "b": 1.5}}
    for method, values in errors.items():
        folders[method] = {0: tmp_path / method}
        folders[method][0].mkdir()
        made_up(values, REGRESSION).write(folders[method][0])
    content = compare(folders, 0.02)
    good, bad = (content.methods[name].aggregated for name in ("good", "bad"))
    assert (good.harmed, bad.harmed) == ((), ("a",))
    assert good.gain == Spread(0.75, None)
    assert good.scores["worst"].mean == 1.0
    assert good.scores["bottom_decile"].mean == pytest.approx(0.95)
    assert good.scores["pearson"].mean == 0.75
    best = " & ".join(rf"\textbf{{{value}}}" for value in ("0.750", "+0.750", "1.000", "0.950"))
    assert rf"good & $\bar\theta$ & {best} & \textbf{{0}} &" in as_latex(content)
    assert [content.methods[name].tuned.rank for name in errors] == [2.5, 1.0, 2.5]
    assert as_latex(content, columns=["rank"]).count(r"\textbf{1.00}") == 2
    assert good.interval == pytest.approx((0.75 - 12.7062 * 0.25, 0.75 + 12.7062 * 0.25), abs=1e-3)
    pair = next(one for one in content.pairs or () if (one.first, one.second) == ("local", "good"))
    assert (pair.difference, pair.probability, pair.clients) == (-0.75, 0.5, 2)
    assert len(content.pairs or ()) == 6
    assert as_csv(content).startswith("method,seed,model,rmse,pearson,worst,bottom_decile,bytes,")
    assert as_markdown(content).startswith("| method | rmse θ̄ | gain | rmse θ |")
    assert rich_table(content).title == "Test rmse, after 1 rounds, seed 0"
    assert "more than 0.02 above local-only training" in caption(content)
    assert "the highest tenth" in caption(content)
    assert content.to_json()["metrics"][0] == {"name": "rmse", "unit": "", "higher": False}
    content.write(tmp_path)
    assert Comparison.read(tmp_path) == content


def test_runs_of_different_tasks_are_not_compared(tmp_path: Path) -> None:
    for name, metrics in (("a", CLASSIFICATION), ("b", REGRESSION)):
        (tmp_path / name).mkdir()
        made_up({"x": 0.5}, metrics).write(tmp_path / name)
    with pytest.raises(UserError, match="scored by other metrics"):
        compare({name: {0: tmp_path / name} for name in "ab"}, 0.02)


def test_one_seed_has_no_standard_deviation_and_no_local_no_harm(tmp_path: Path) -> None:
    made_up({"a": 0.5}).write(tmp_path)
    content = compare({"fed_avg": {3: tmp_path}}, 0.02)
    assert content.methods["fed_avg"].tuned.scores["accuracy"] == Spread(0.5, None)
    assert content.methods["fed_avg"].tuned.harmed is None
    assert "put local among the methods" in caption(content)
    assert rich_table(content).row_count == 2
    assert r"fed\_avg & $\bar\theta$ & 50.0 & -- & 50.0 & 50.0 & -- & 0.0 & 2 \\" in as_latex(content)
    row = "| `fed_avg` | 50.0 | – | 50.0 | – | 50.0 / 50.0 | 50.0 / 50.0 | – / – | 0.0 | 2 |"
    assert as_markdown(content).splitlines()[2] == row
    assert as_csv(content).splitlines()[1].startswith("fed_avg,3,aggregated,0.5,0.5,0.5,0.5,3,1.75,")


def test_a_summary_that_was_cut_off_is_no_result(tmp_path: Path) -> None:
    (entry,) = plan(["local"], [0], ["--config=configs/debug.yaml"], tmp_path)
    entry.folder.mkdir()
    assert entry.summary is None
    made_up({"a": 0.5}).write(entry.folder)
    assert entry.summary is not None
    path = entry.folder / "summary.json"
    path.write_bytes(path.read_bytes()[:-20])
    assert entry.summary is None


def test_every_shipped_method_can_be_compared(tmp_path: Path) -> None:
    names = sorted(path.stem for path in Path("configs/method").glob("*.yaml"))
    entries = plan(names, [0], ["--config=configs/debug.yaml"], tmp_path)
    assert [entry.method for entry in entries] == [entry.config.name for entry in entries] == names
    assert {entry.config.rounds for entry in entries} == {2}
