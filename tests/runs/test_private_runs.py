"""Privacy holds for a run, not only for each of its methods."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fedpl.api import Run
from fedpl.cli import make_parser, read
from fedpl.conditions import PrivacyConfig
from fedpl.config import ClientConfig, Config, with_changes
from fedpl.problems import problems
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Workshop
from fedpl.runs.sharing import release
from fedpl.site.privacy import epsilon
from fedpl.site.site import Site


@pytest.fixture(scope="module")
def private(small_run: list[str]) -> Config:
    changes = {"privacy.clip": 1.0, "rounds": 2, "tracking.plots": False, "baselines": ["local", "fedavg"]}
    return with_changes(read(make_parser("fit", ""), small_run), changes)


@pytest.fixture(scope="module")
def sent(
    private: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[tuple[str, int, str], torch.Tensor]]:
    """A run with a baseline, and everything that left a client: by method, round and client."""
    found: dict[tuple[str, int, str], torch.Tensor] = {}
    inner = Site.train

    def listening(self, group, into):  # type: ignore[no-untyped-def]
        for report in inner(self, group, into):
            work = next(each for each in group if each.client == report.client)
            if work.sends:
                found[work.run, work.round, work.client] = report.vector.clone()
            yield report

    folder = tmp_path_factory.mktemp("private") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site, "train", listening)
        run(replace(private, run_dir=str(folder)), Console(quiet=True))
    return folder, found


def test_the_difference_of_two_methods_is_not_free_of_noise(
    sent: tuple[Path, dict[tuple[str, int, str], torch.Tensor]],
) -> None:
    """Once: both drew the noise of (round, client), and what they sent differed by what they had learned."""
    _, found = sent
    assert {method for method, _, _ in found} == {"fedbip", "fedavg"}
    for (method, round, client), vector in found.items():
        if method == "fedbip":
            apart = vector - found["fedavg", round, client]
            # Two clipped vectors of length 1 and two independent noises of deviation 1.
            assert apart.norm() > (2 * len(vector)) ** 0.5 * 0.8


def test_epsilon_counts_the_baselines_task_vectors(
    sent: tuple[Path, dict[tuple[str, int, str], torch.Tensor]],
) -> None:
    summary = Run.open(sent[0]).summary
    assert summary.privacy is not None
    settings = PrivacyConfig(clip=1.0)
    assert summary.privacy.epsilon == pytest.approx(epsilon(settings, 2))
    assert summary.privacy.epsilon_with_baselines == pytest.approx(epsilon(settings, 4)), (
        "local sends nothing"
    )


def test_runs_that_differ_in_what_they_learn_draw_other_noise(private: Config) -> None:
    """With one noise, what two runs send would differ by what the setting does to the data's trace."""
    same = {
        "rounds": 7,
        "tracking.plots": True,
        "client.cohort_size": 1,
        "client.tokens_per_pass": 99,
        "baselines": [],
        "run_dir": "elsewhere",
        "server.storage": "sharded",  # it rounds otherwise, as other workers do
        "server.shards": 3,
        "executor.kind": "processes",
    }
    assert release(with_changes(private, same)) == release(private)
    falling = with_changes(private, {"client.schedule": "linear", "client.schedule_over": "run"})
    assert release(with_changes(falling, {"rounds": 7})) != release(falling)
    others = [
        {"client.lr": 0.5},
        {"lora.r": 3},
        {"aggregator.granularity": "block"},
        {"privacy.noise_multiplier": 2.0},
        {"task": "fedpl.tasks.Classification", "model.max_length": 64},
        {"method": "ditto"},
    ]
    found = {release(with_changes(private, change)) for change in others}
    assert len(found | {release(private)}) == len(others) + 1
    assert ClientConfig().cohort_size == "auto"


def test_private_methods_do_not_share_answers(private: Config) -> None:
    workshop = Workshop()
    one = workshop.prepare(private)
    assert workshop.prepare(with_changes(private, {"method": "fedavg"})) is not one
    open_ = with_changes(private, {"privacy.clip": None})
    shared = workshop.prepare(open_)
    assert workshop.prepare(with_changes(open_, {"method": "fedavg"})) is shared


def test_a_choice_among_models_is_refused_beside_privacy(private: Config) -> None:
    (line,) = problems(with_changes(private, {"method": "ifca"}))
    assert "clients of 'ifca' say in every round which of several models" in line
    (line,) = problems(with_changes(private, {"baselines": ["ifca"]}))
    assert "clients of 'ifca'" in line
    assert not problems(with_changes(private, {"privacy.clip": None, "method": "ifca"}))
