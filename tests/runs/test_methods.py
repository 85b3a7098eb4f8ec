"""Every preset through the whole program on the small model, and what it leaves behind."""

import json
from pathlib import Path

import pytest

import fedpl
from fedpl.data import Columns, TextFiles
from fedpl.fit import main
from fedpl.tasks.metrics import classification_scores

METHODS = sorted((Path(__file__).parents[2] / "configs" / "method").glob("*.yaml"))
# The table of the tests names no groups.
RUNNABLE = [path for path in METHODS if path.stem != "true_groups"]

# Their clients keep a model beside the aggregate.
PERSONAL = {"apfl", "ditto", "feddpa"}


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: path.stem)
def test_a_method_runs_and_its_adapters_answer_as_its_summary_says(
    path: Path, small_run: list[str], small_table: Path, tmp_path: Path
) -> None:
    """Loaded by PEFT on a fresh model; FLoRA's and FedEx's hold what went into the frozen weights."""
    folder = tmp_path / "run"
    quiet = ["--tracking.plots=false", "--tracking.progress=false", "--baselines=[]"]
    assert main([f"--config={path}", *small_run, "--client.lr=0.02", f"--run_dir={folder}", *quiet]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["method"] == path.stem
    source = TextFiles((str(small_table),), Columns(split="split"))
    tests = {client.id: client.test for client in source.load(0).clients}
    assert (folder / "personal").exists() == (path.stem in PERSONAL)
    for client, entry in summary["clients"].items():
        answers = {"adapters": entry["aggregated"]}
        if path.stem == "ditto":
            answers["personal"] = entry["tuned"]
        for kind, scores in answers.items():
            model = fedpl.load(folder, client, personal=kind == "personal")
            found = model.logits(tests[client].texts).argmax(-1)
            reached = classification_scores(tests[client].labels, found.tolist())
            assert reached["accuracy"] == scores["accuracy"]


def test_traffic_is_what_a_method_exchanges(small_run: list[str], tmp_path: Path) -> None:
    """In adapters' worth: B and A halved, IFCA's two models, everyone's factors for FLoRA."""
    sent = {}
    for name in ("fedbip", "fedsa", "fedper", "ifca", "flora"):
        config = METHODS[0].with_name(f"{name}.yaml")
        folder = tmp_path / name
        quiet = ["--tracking.plots=false", "--tracking.progress=false", "--baselines=[]", "--rounds=1"]
        main([f"--config={config}", *small_run[:-2], *quiet, f"--run_dir={folder}"])
        sent[name] = json.loads((folder / "summary.json").read_text())["bytes"]
    whole = sent["fedbip"]["up"]
    assert sent["fedbip"]["down"] == whole
    head = 4 * 3 * (2 * 32 + 2)  # bytes, clients, numbers
    assert sent["fedper"]["up"] == whole - head
    assert sent["fedsa"]["up"] == (whole - head) // 2
    assert (sent["ifca"]["up"], sent["ifca"]["down"]) == (whole, 2 * whole)
    assert (sent["flora"]["up"], sent["flora"]["down"]) == (whole, whole + 3 * (whole - head))
