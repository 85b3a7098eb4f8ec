import io

from rich.console import Console

from fedpl.tracking.progress import Display, closing_table, round_line

SCORES = {"mean": {"accuracy": 0.8125}, "worst": {"accuracy": 0.5}}
RECORD = {
    "method": "fedbip",
    "round": 2,
    "train_loss": 0.25,
    "participants": 3,
    "clients": {"id": ["a", "b", "c"]},
    "seconds": {"train": 1.5, "aggregate": 0.002, "evaluate": 0.5},
    "validation": {"aggregated": SCORES, "tuned": SCORES},
}


def test_a_round_in_one_line() -> None:
    assert round_line(RECORD, 5) == (
        "fedbip  round 2/5  loss 0.250  aggregated 81.2 (worst 50.0)  tuned 81.2 (worst 50.0)  "
        "train 1.5 s, aggregate 2 ms"
    )
    assert "loss not finite" in round_line(RECORD | {"train_loss": None}, 5)
    partial = round_line(RECORD | {"participants": 2, "epsilon": 1.5}, 5)
    assert "loss 0.250  2 of 3 clients  aggregated" in partial
    assert "  ε 1.500  train" in partial


def test_a_client_without_a_tuned_model_has_a_dash() -> None:
    entry = {"accuracy": 0.5, "macro_f1": 0.25}
    models = {"aggregated": entry, "tuned": None, "majority": entry}
    statistics = {name: models | {"tuned": entry} for name in ("mean", "std", "worst", "bottom_decile")}
    summary = {"method": "m", "rounds": 1, "baselines": {}, "clients": {"a": models}} | statistics
    table = closing_table(summary)
    assert [next(iter(column.cells)) for column in table.columns] == ["a", "50.0", "–", "50.0"]


def shown(terminal: bool, enabled: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with Display(console, enabled) as display:
        display.begin("fedbip", 5, 12)
        display.round(RECORD, 5)
        display.line(
            "a line that is rather longer than the eighty columns that the terminal has for it, all in one"
        )
    return console.file.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    text = shown(terminal=False, enabled=True)
    assert "\x1b" not in text
    assert text.splitlines()[0] == round_line(RECORD, 5)
    assert len(text.splitlines()) == 2


def test_a_live_display_on_a_terminal() -> None:
    text = shown(terminal=True, enabled=True)
    assert "\x1b" in text
    assert "clients" in text


def test_no_progress_when_switched_off() -> None:
    assert "round 2/5" not in shown(terminal=True, enabled=False)
