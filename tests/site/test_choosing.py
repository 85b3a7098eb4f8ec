"""What answers for a client when a run has ended, by its own validation data."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from scipy.stats import t

import fedpl
from fedpl.cli import make_parser, read
from fedpl.compare.__main__ import main as comparing
from fedpl.compare.latex import as_latex
from fedpl.compare.tables import as_csv, as_markdown
from fedpl.config import with_changes
from fedpl.data import Columns, Split, TextFiles
from fedpl.errors import UserError
from fedpl.export import main as export
from fedpl.fit import main
from fedpl.model.saved import save_adapter
from fedpl.objectives import Plain
from fedpl.records.choice import Advantage, Choice
from fedpl.records.comparison import Comparison
from fedpl.records.messages import Begin, Choose, Work
from fedpl.records.results import RunSummary
from fedpl.report import main as report
from fedpl.runs.experiment import run as run_experiment
from fedpl.runs.prepared import prepare
from fedpl.runs.sites import here
from fedpl.site.choosing import TUNED, decide
from fedpl.site.guard import choose
from fedpl.site.site import Site
from fedpl.tracking.closing import headline
from tests.conftest import small_rows, write_csv
from tests.made_up import summary

GUARD = "--client.guard=validation"
LEAN = ["--tracking.plots=false", "--tracking.progress=false", "--client.lr=0.02", "--client.epochs=8"]


@pytest.mark.parametrize(
    ("local", "tuned", "model"),
    [
        ([1.0] * 10, [1.0] * 5 + [0.0] * 5, "local"),
        ([1.0] * 7 + [0.0] * 3, [1.0] * 9 + [0.0], "tuned"),
        ([1.0] * 5 + [0.0] * 5, [1.0] * 4 + [0.0] * 6, "aggregated"),  # one example more is no evidence
        ([0.0] * 10, None, "aggregated"),
        (None, [1.0] * 10, "tuned"),
        (None, None, "aggregated"),
    ],
)
def test_the_aggregate_unless_another_is_better_by_more_than_a_standard_error(
    local: list[float] | None, tuned: list[float] | None, model: str
) -> None:
    aggregated = np.array([1.0] * 4 + [0.0] * 6)
    others = {name: np.array(own) for name, own in (("tuned", tuned), ("local", local)) if own is not None}
    found = decide({"aggregated": aggregated, **others})
    assert (found.model, found.examples, set(found.over)) == (model, 10, set(others))
    for name, own in found.over.items():
        difference = np.append(others[name] - aggregated, 0.0)
        error = difference.std(ddof=1) / 11**0.5
        ends = t.interval(0.95, 10, difference.mean(), error) if error else (0.0, 0.0)
        assert (own.mean, own.low, own.high) == pytest.approx((difference.mean(), *ends))


@pytest.mark.parametrize("examples", range(2, 40))
def test_one_example_more_is_no_evidence_however_few_there_are(examples: int) -> None:
    first, other = np.zeros(examples), np.zeros(examples)
    other[0] = 1.0
    assert choose([first, other]) == 0


@pytest.mark.parametrize(("wins", "losses", "taken"), [(1, 0, 0), (2, 0, 1), (3, 1, 0), (4, 1, 1)])
def test_what_the_documentation_says_of_sixteen_examples(wins: int, losses: int, taken: int) -> None:
    first = np.array([0.0] * wins + [1.0] * losses + [0.0] * (16 - wins - losses))
    other = np.array([1.0] * wins + [0.0] * losses + [0.0] * (16 - wins - losses))
    assert choose([first, other]) == taken


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_run: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("chosen") / "run"
    words = ["--rounds=2", "--baselines=[local]", "--method=fedavg", "--participation.fraction=0.7"]
    assert main([*small_run, *LEAN, *words, GUARD, f"--run_dir={folder}"]) == 0
    return folder


def test_a_run_keeps_what_clients_chose_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = RunSummary.read(run)
    took_part = {client for client in known.clients if known.scores_of(client).tuned is not None}
    assert 0 < len(took_part) < len(known.clients), "whoever was away has no tuned model of the last round"
    for client, own in known.clients.items():
        assert own.choice is not None
        written = Choice.read(run / "best" / client)
        assert own.choice == replace(written, test=None)
        assert own.scores.chosen == written.test
        assert set(own.choice.over) == {"local", *(["tuned", "mixture"] if client in took_part else [])}
        card = json.loads((run / "adapters" / client / "fedpl.json").read_text())
        assert card["choice"]["model"] == own.choice.model
        page = (run / "adapters" / client / "README.md").read_text()
        assert f"chosen by 4 validation examples to answer for the client: {own.choice.model}" in page
    assert export([str(run), "--csv"]) == 0
    with (run / "exports" / "clients.csv").open() as file:
        rows = {row["client"]: row for row in csv.DictReader(file)}
    assert {client: row["chosen"] for client, row in rows.items()} == {
        client: own.choice.model for client, own in known.clients.items() if own.choice
    }


def test_what_was_chosen_is_exported_and_answers(run: Path, tmp_path: Path) -> None:
    """Averaging harms the client of the other convention, which chooses one of its own models."""
    everybody = list(RunSummary.read(run).clients)
    models = {client: Choice.read(run / "best" / client).model for client in everybody}
    assert models["three-b"] != "aggregated"
    assert "aggregated" in models.values()
    texts = ["the flight was good and great", "the seat was bad and awful"]
    for client, model in models.items():
        best, own = fedpl.load(run, client, model="best"), fedpl.load(run, client)
        assert torch.equal(best.logits(texts), own.logits(texts)) == (model == "aggregated")
        exported = tmp_path / client
        assert export([str(run), f"--client={client}", "--model=best", f"--out={exported}"]) == 0
        card = json.loads((exported / "fedpl.json").read_text())
        assert card["kind"] == ("adapters" if model == "aggregated" else "best")
    asked = [row for row in small_rows(("three-b",)) if row["split"] == "validation"]
    right = [
        sum(
            said == row["label"]
            for said, row in zip(model.predict([r["text"] for r in asked]), asked, strict=True)
        )
        for model in (fedpl.load(run, "three-b", model="best"), fedpl.load(run, "three-b"))
    ]
    choice = Choice.read(run / "best" / "three-b")
    assert choice.over[choice.model].mean == pytest.approx((right[0] - right[1]) / (len(asked) + 1))
    models = fedpl.load_all(run, model="best")
    one_by_one = [fedpl.load(run, each, model="best").logits(texts[:1]) for each in everybody]
    together = models.logits(texts[:1] * len(everybody), everybody)
    torch.testing.assert_close(together, torch.cat(one_by_one), rtol=1e-4, atol=1e-5)


def test_many_clients_choices_are_kept_in_columns(tmp_path: Path) -> None:
    """Whether all have a tuned model or a local one, or some."""
    over = Advantage(mean=0.1, low=-0.1, high=0.3)
    found = summary({str(i): 0.5 for i in range(70)})
    for tuned, local in ((2, 3), (1, 71), (71, 1)):
        clients = {
            client: replace(
                own,
                choice=Choice(
                    model="tuned",
                    examples=8,
                    tuned=None if int(client) % tuned else over,
                    mixture=None if int(client) % tuned else over,
                    local=None if int(client) % local else over,
                ),
            )
            for client, own in found.clients.items()
        }
        replace(found, clients=clients).write(tmp_path)
        assert RunSummary.read(tmp_path).clients == clients


def test_the_page_says_what_answers(run: Path, tmp_path: Path) -> None:
    assert report([str(run), f"--output={tmp_path / 'page.html'}"]) == 0
    assert "answers for it" in (tmp_path / "page.html").read_text()


def test_choosing_changes_nothing_else(run: Path, small_run: list[str], tmp_path: Path) -> None:
    words = ["--rounds=2", "--baselines=[local]", "--method=fedavg", "--participation.fraction=0.7"]
    main([*small_run, *LEAN, *words, f"--run_dir={tmp_path}"])
    plain, own = RunSummary.read(tmp_path), RunSummary.read(run)
    assert not (tmp_path / "best").exists()
    assert {c: one.scores for c, one in plain.clients.items()} == {
        c: replace(one.scores, chosen=None) for c, one in own.clients.items()
    }
    with pytest.raises(UserError, match="chose nothing"):
        fedpl.load(tmp_path, next(iter(plain.clients)), model="best")
    with pytest.raises(UserError, match="not among its newcomers"):
        fedpl.load(run, "one-a", newcomer=True, model="best")


def test_who_has_no_test_data_chooses_too(small_run: list[str], small_table: Path, tmp_path: Path) -> None:
    data = TextFiles((str(small_table),), Columns(split="split")).load(0)
    first, *others = data.clients
    data = replace(data, clients=(replace(first, test=Split((), ())), *others))
    words = ["--baselines=[]", "--rounds=1", f"--run_dir={tmp_path / 'run'}", GUARD]
    config = read(make_parser("fit", ""), [*small_run, *LEAN, *words])
    run_experiment(config, Console(quiet=True), prepared=prepare(config, data))
    choices = {client: Choice.read(tmp_path / "run" / "best" / client) for client in data.ids}
    assert all(set(choice.over) == {"tuned", "mixture"} for choice in choices.values())
    assert {client for client, choice in choices.items() if choice.test is None} == {first.id}
    assert RunSummary.read(tmp_path / "run").clients[first.id].scores.chosen is None


def test_it_is_refused_where_there_is_nothing_to_choose_by(small_run: list[str], tmp_path: Path) -> None:
    rows = [row for row in small_rows(("one-a", "two-a")) if row["split"] != "validation"]
    table = write_csv(tmp_path / "table.csv", rows)
    with pytest.raises(UserError, match=r"client\.guard: .* client 'one-a' has none"):
        main(
            [
                *small_run,
                f"--data.paths=[{table}]",
                "--data.small_clients=train_only",
                GUARD,
                f"--run_dir={tmp_path / 'run'}",
            ]
        )
    assert not (tmp_path / "run").exists()


def train(site: Site, clients: tuple[str, ...]) -> torch.Tensor:
    """What they make of θ₀."""
    start = site.join().initial
    rows = {client: torch.zeros_like(start) for client in clients}
    work = [Work(client, 1, start, (), Plain(), run="fedbip") for client in clients]
    for group in site.plan(work).shared_out(work):
        list(site.train(group, rows))
    return start + torch.stack([rows[client] for client in clients])


def right(run: Path, client: str, split: str, **which: Any) -> float:
    """The share of a client's examples that its model answers right, as its user would find."""
    asked = [row for row in small_rows((client,)) if row["split"] == split]
    said = fedpl.load(run, client, **which).predict([row["text"] for row in asked])
    return sum(one == row["label"] for one, row in zip(said, asked, strict=True)) / len(asked)


def test_scores_are_those_of_the_models_that_answer(run: Path) -> None:
    """Of what was chosen, client by client and over all of them."""
    known = RunSummary.read(run)
    found = {client: right(run, client, "test", model="best") for client in known.clients}
    scores = {client: own.scores.chosen for client, own in known.clients.items()}
    assert {client: own["accuracy"] for client, own in scores.items() if own} == pytest.approx(found)
    assert known.test.value("mean", "chosen", known.primary) == pytest.approx(np.mean(list(found.values())))
    assert headline(known)["test/chosen/mean/accuracy"] == pytest.approx(np.mean(list(found.values())))
    assert headline(known)["over_local/chosen/harmed"] == 0.0


def test_a_mixture_is_half_of_both(small_run: list[str], tmp_path: Path) -> None:
    """Taken where it alone answers right: aggregate and tuned model lie on either side of a good one."""
    config = with_changes(read(make_parser("fit", ""), [*small_run, *LEAN]), {"client.guard": "validation"})
    site = here(config).site
    clients = tuple(member.client for member in site.join().members)
    good = train(site, clients)
    away = 3 * torch.randn(good.shape, generator=torch.Generator().manual_seed(0))
    site.tell(Begin("fedbip", str(tmp_path / "memory")))
    kept = {client: site._memory.keep(client, {TUNED: good[i] - away[i]}) for i, client in enumerate(clients)}
    site.tell(Choose(str(tmp_path), clients, good + away, kept, tuned=clients))
    found = {client: Choice.read(tmp_path / "best" / client) for client in clients}
    mixed = [client for client, choice in found.items() if choice.model == "mixture"]
    assert mixed, found
    for client in mixed:
        (scores,) = site.score([client], good[[clients.index(client)]], "test").values()
        assert found[client].test == pytest.approx(scores)
        folders = tmp_path / "best" / client, tmp_path / "good" / client
        folders[1].mkdir(parents=True)
        save_adapter(good[clients.index(client)], site.foundation.model, site.foundation.layout, folders[1])
        saved, expected = (load_file(one / "adapter_model.safetensors") for one in folders)
        torch.testing.assert_close(saved, expected, rtol=0, atol=2e-6)  # (g + a) + (g − a) rounds at a


def test_a_longer_run_chooses_anew(run: Path, small_run: list[str], tmp_path: Path) -> None:
    """One round, then gone on with to two: as two at once, whatever had been chosen after the first."""
    words = ["--baselines=[local]", "--method=fedavg", "--participation.fraction=0.7"]
    folder = tmp_path / "run"
    assert main([*small_run, *LEAN, *words, GUARD, "--rounds=1", f"--run_dir={folder}"]) == 0
    assert main([f"--resume={folder}", "--rounds=2"]) == 0
    one, other = RunSummary.read(run), RunSummary.read(folder)
    assert one.clients == other.clients
    assert one.test == other.test
    for client in one.clients:
        mine, its = (fedpl.load(own, client, model="best").logits(["a seat"]) for own in (run, folder))
        assert torch.equal(mine, its)


def test_private_clients_do_not_tell_what_they_chose(small_run: list[str], tmp_path: Path) -> None:
    """Ditto's v stands for what training made; what answers lies with the client, as all its models do."""
    private = ["--privacy.clip=1", "--privacy.noise_multiplier=0.1", "--method=ditto", "--baselines=[]"]
    folder = tmp_path / "run"
    assert main([*small_run, *LEAN, *private, GUARD, "--rounds=1", f"--run_dir={folder}"]) == 0
    known = RunSummary.read(folder)
    assert all(own.choice is None and own.scores.chosen is None for own in known.clients.values())
    for client in known.clients:
        choice = Choice.read(folder / "best" / client)
        assert choice.test == {
            **choice.test,
            "accuracy": pytest.approx(right(folder, client, "test", model="best")),
        }
        if choice.model == "tuned":
            texts = ["the seat was bad"]
            best, own = (fedpl.load(folder, client, **one) for one in ({"model": "best"}, {"personal": True}))
            assert torch.equal(best.logits(texts), own.logits(texts))


def test_workers_let_their_clients_choose_the_same(run: Path, small_run: list[str], tmp_path: Path) -> None:
    words = ["--rounds=2", "--baselines=[local]", "--method=fedavg", "--participation.fraction=0.7"]
    workers = ["--executor.kind=processes", "--executor.workers=2", f"--run_dir={tmp_path}"]
    assert main([*small_run, *LEAN, *words, GUARD, *workers]) == 0
    one, other = RunSummary.read(run), RunSummary.read(tmp_path)
    assert {c: own.choice and own.choice.model for c, own in one.clients.items()} == {
        c: own.choice and own.choice.model for c, own in other.clients.items()
    }


def test_a_comparison_shows_what_guards_chose(small_run: list[str], tmp_path: Path) -> None:
    words = [*small_run, *LEAN, GUARD, "--rounds=1", "--quiet"]
    assert comparing(["--methods=fedavg,fedbip", "--seeds=0", f"--out={tmp_path}", *words]) == 0
    found = Comparison.read(tmp_path)
    assert found.models == ("aggregated", "tuned", "chosen")
    for method, entry in found.methods.items():
        run = RunSummary.read(tmp_path / f"{method}-s0")
        assert entry.of("chosen").scores["accuracy"].mean == run.test.value("mean", "chosen", run.primary)
        assert entry.of("chosen").harmed is not None
    table = as_markdown(found).splitlines()
    assert len({line.count("|") for line in table[: 2 + len(found.methods)]}) == 1
    assert "accuracy chosen" in table[0]
    assert "chosen" in as_latex(found)
    assert {line.split(",")[2] for line in as_csv(found).splitlines()[1:]} == set(found.models)
