"""What is said before a run, and that nothing is trained or written."""

import json
from pathlib import Path

import pytest
from PIL import Image

import fedpl
from fedpl.cli import make_parser, read
from fedpl.fit import main
from fedpl.runs.forecast import forecast
from fedpl.runs.prepared import prepare
from tests.tiny_language import language_model, rows


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fedpl.training.worker.Worker.fit", lambda *_: pytest.fail("trained"))
    monkeypatch.chdir(tmp_path)


def test_what_a_run_of_classes_says(
    small_run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small_run, "--dry_run", f"--run_dir={tmp_path / 'new' / 'run'}"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in (
        "3 clients",
        "one-a 16 4 4 12 12 0 50.0 no 8, yes 8",
        "the first training example of 'one-a'",
        "→ ⟦no⟧",
        "12 optimiser steps of all clients in a round in 4 passes of up to 3 clients; 2 rounds, 3 methods",
        "from a timed forward pass",
        "nothing was trained",
    ):
        assert words in said, said
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.png")] == ["new/run-labels.png"]
    assert Image.open(tmp_path / "new" / "run-labels.png").width > 400
    # The picture is not in the run's way. Who trains in workers is told by this process too.
    workers = ["--executor.kind=processes", f"--run_dir={tmp_path / 'new' / 'run'}"]
    assert main([*small_run, "--dry_run", *workers]) == 0
    assert "where 2 workers are going to share it" in " ".join(capsys.readouterr().out.split())


def test_steps_and_passes_are_those_of_the_run(small_run: list[str]) -> None:
    config = read(make_parser("fit", ""), [*small_run, "--client.epochs=3", "--client.max_steps=5"])
    found = forecast(config, prepare(config).executor.site.worker)  # type: ignore[attr-defined]
    assert (found.steps, found.methods, found.asked, found.cohort) == (15, 3, 3, 3)
    assert found.tokens == 15 * 4 * 12
    assert found.seconds > 0


@pytest.mark.parametrize(("baselines", "models"), [("local", 4), ("fedavg", 3)])
def test_a_guard_looks_at_more_models(baselines: str, models: int, small_run: list[str]) -> None:
    """Three clients of 4 validation and 4 test texts of 12 tokens, once more for what was chosen."""
    work = []
    for guard in ("none", "validation"):
        words = [*small_run, f"--client.guard={guard}", f"--baselines=[{baselines}]"]
        config = read(make_parser("fit", ""), words)
        found = forecast(config, prepare(config).executor.site.worker)  # type: ignore[attr-defined]
        work.append(found.seconds * found.rate)
    assert work[1] - work[0] == pytest.approx((models + 1) * 3 * 4 * 12)


def test_what_carries_the_loss_of_a_language_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows("one", ("yes", "no"))))
    model = language_model(tmp_path / "llama")
    columns = ["prompt=prompt", "answer=answer", "split=split"]
    before = sorted(tmp_path.rglob("*"))
    main(
        [
            "--dry_run",
            "--task=Generation",
            "--data=fedpl.data.TextFiles",
            f"--data.paths=[{table}]",
            *(f"--data.columns.{column}" for column in columns),
            f"--model.path={model}",
            "--lora.r=2",
            "--accelerator=cpu",
            "--method=ditto",
        ]
    )
    said = capsys.readouterr().out
    assert "⟦yes</s>⟧" in said or "⟦no</s>⟧" in said
    assert "the answer and its end" in said
    assert "in other phases beside the main one" in said
    assert "there are no labels to draw" in " ".join(said.split())
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_run_would_refuse_is_refused(small_run: list[str], tmp_path: Path) -> None:
    with pytest.raises(fedpl.UserError, match=r"rank|lora"):
        main([*small_run, "--dry_run", "--lora.r=4000"])
    with pytest.raises(fedpl.UserError, match="the run has begun"):
        main(["--dry_run", "--resume", str(tmp_path)])


def test_numbers_have_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "rated.csv"
    lines = [f"{client},text {i} of {client},{i % 4 - 1.5}" for client in "ab" for i in range(20)]
    table.write_text("\n".join(["client,text,rating", *lines]) + "\n")
    columns = ("text=text", "value=rating", "client=client")
    main(
        [
            *(
                "--dry_run",
                "--config=debug",
                "--task=fedpl.tasks.Regression",
                "--task.low=-4",
                "--task.high=4",
            ),
            *("--data=fedpl.data.TextFiles", f"--data.paths=[{table}]", f"--run_dir={tmp_path / 'run'}"),
            *(f"--data.columns.{column}" for column in columns),
        ]
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "training numbers" in said
    assert "-1.5 to 1.5, mean" in said
    assert "what carries the loss: the number" in said
    assert "there are no labels to draw" in said
