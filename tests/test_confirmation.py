"""The study on unseen populations: its settings are fedpl's, its statistics hold, seeds share nothing."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.confirmation.__main__ import SETTINGS, as_words
from benchmarks.confirmation.entrants import ENTRANTS
from benchmarks.confirmation.populations import SEEDS, TEXTS, write_table
from benchmarks.confirmation.populations import populations as of
from benchmarks.confirmation.statistics import MARGIN, gain, harmed, not_below_better
from benchmarks.confirmation.tables import page
from benchmarks.confirmation.tables import table as shown
from benchmarks.groups import populations
from fedpl.cli import make_parser, read
from fedpl.data.duplicates import normalise
from fedpl.problems import check

DOMAINS = [f"domain {letter}" for letter in "abcdefghij"]
WORDS = [
    "red",
    "green",
    "blue",
    "grey",
    "pink",
    "gold",
    "teal",
    "plum",
    "rust",
    "sand",
    "mint",
    "lime",
    "navy",
    "ruby",
    "jade",
    "coal",
]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Made-up texts, enough for every population."""
    stream, path = np.random.default_rng(0), tmp_path / "clinc150.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for place, domain in enumerate([*DOMAINS, "oos"] * 1300):
            text = " ".join(stream.choice(WORDS, 9)) + f" {place}"
            file.write(
                json.dumps({"text": text, "domain": domain, "intent": f"{domain} {place % 15}"}) + "\n"
            )
    with gzip.open(tmp_path / "sentconv_tasks.jsonl.gz", "wt", encoding="utf-8") as file:
        for place in range(18_000):
            task, label = ("CR", "MPQA", "MR", "SUBJ", "TREC")[place % 5], place // 5 % 2
            text = " ".join(stream.choice(WORDS, 9)) + f" {place}"
            file.write(json.dumps({"text": text, "task": task, "label": label}) + "\n")
    monkeypatch.setattr(populations, "shared_file", lambda name: tmp_path / name)
    return path


@pytest.mark.parametrize(("texts", "population"), [(texts, name) for texts in TEXTS for name in of(texts)])
def test_every_population_is_dealt_by_settings_of_fedpl(
    texts: str, population: str, table: Path, tmp_path: Path
) -> None:
    own, asked = write_table(population, 0, tmp_path / "own", texts), of(texts)[population]
    swapped = texts == "requests" and population == "a pair swapped"
    other = {"data.convention.pairs": [DOMAINS[:2]]} if swapped else {}
    settings = {**SETTINGS, "data.paths": [str(own)], **asked.settings, **other}
    config = read(make_parser("fit", ""), as_words(settings))
    check(config)
    data = config.data.load(0)
    named = {client.group for client in data.clients}
    assert asked.named == all(named)
    assert all(len(client.test.texts) for client in data.clients)
    if asked.groups:
        assert 1 < len(named) < len(data.clients)
    if population == "sizes 8 to 512":
        sizes = [len(client.train.texts) for client in data.clients]
        assert min(sizes) < 10
        assert max(sizes) > 450


def test_seeds_share_no_example(table: Path, tmp_path: Path) -> None:
    said = []
    for seed in SEEDS:
        rows = write_table("one convention", seed, tmp_path / str(seed)).read_text().splitlines()
        said.append({normalise(json.loads(row)["text"]) for row in rows})
        assert len(said[-1]) > 3500
    assert not said[0] & said[1] | said[0] & said[2] | said[1] & said[2]


def made_up(stream: np.random.Generator, mean: float, clients: int = 12) -> dict[str, dict[str, float]]:
    return {s: {str(c): mean + 0.04 * stream.standard_normal() for c in range(clients)} for s in "012"}


def test_who_loses_the_margin_is_rarely_called_not_worse() -> None:
    """At the margin itself, against each of two others: at most the level (0.05), and its own error."""
    calls, many = 0, 300
    for number in range(many):
        stream = np.random.default_rng(number)
        others = made_up(stream, 0.8), made_up(stream, 0.7)
        found = made_up(stream, 0.8 - MARGIN)
        calls += not_below_better([gain(found, other) for other in others]) <= 0.05
    assert calls / many <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / many)


def test_an_interval_holds_the_truth_and_a_gain_is_found() -> None:
    stream, held = np.random.default_rng(1), 0
    for _ in range(100):
        found = gain(made_up(stream, 0.83), made_up(stream, 0.8))
        held += found.low <= 0.03 <= found.high
        assert found.low < found.mean < found.high
    assert held >= 88  # of 95; three standard deviations below
    assert found.worse < 0.05


@pytest.mark.parametrize("name", ENTRANTS)
def test_every_entrant_is_a_preset_with_settings_of_fedpl(name: str) -> None:
    entrant = ENTRANTS[name]
    words = [f"--method={entrant.preset}", *as_words(dict(entrant.settings))]
    check(read(make_parser("fit", ""), words))


def test_clients_that_lose_are_counted_and_strangers_are_refused() -> None:
    alone = {"0": {"a": 0.8, "b": 0.8}, "1": {"a": 0.8, "b": 0.8}}
    found = {"0": {"a": 0.7, "b": 0.79}, "1": {"a": 0.8, "b": 0.9}}
    assert harmed(found, alone, 0.02) == 0.25
    with pytest.raises(ValueError, match="seed 1: the methods have different clients"):
        gain({"1": {"a": 0.5}}, alone)
    with pytest.raises(ValueError, match="share no seed"):
        gain({"7": {"a": 0.5}}, alone)


def test_the_page_says_what_has_been_run_so_far() -> None:
    stream = np.random.default_rng(0)

    def entry(mean: float) -> dict:
        own = made_up(stream, mean)["0"]
        return {"aggregated": own, "tuned": own}

    names = {"fedbip": 0.75, "local": 0.7, "true groups": 0.8, "average": 0.5}
    found = page({"two permutations": {"0": {n: entry(m) for n, m in names.items()}}, "one convention": {}})
    assert "| two permutations (12, 1) | 7" in found
    assert "| two permutations | +" in found.partition("share of the true groups' gain")[2]
    assert " 100 % |" in found
    assert "| local | average | true groups | fedbip |" in found  # in their order, whatever was run first


def test_a_guarded_client_is_judged_by_what_it_chose() -> None:
    alone, better, worse = ({str(i): own for i in range(4)} for own in (0.7, 0.8, 0.6))
    models = {"aggregated": worse, "tuned": worse}
    seed = {
        "local": dict.fromkeys(("aggregated", "tuned"), alone),
        "average": models,
        "average, guard": {**models, "chosen": {**better, "0": 0.6}},
    }
    found = {
        part: shown({"one convention": {"1": seed}}, part) for part in ("aggregated", "chosen", "harmed")
    }
    assert found["aggregated"].splitlines()[0] == "| population (clients, seeds) | local | average |"
    assert found["chosen"].splitlines() == [
        "| population | local | average θ̄ | average chosen |",
        "| --- | --- | --- | --- |",
        "| one convention | 70.0 | 60.0 | 75.0 |",
    ]
    assert found["harmed"].splitlines()[-1] == "| one convention | 100 | 25 |"
