"""How far one FedBip round is spread: what a reader has to open."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import fedpl
from fedpl.rounds.federation import Federation
from fedpl.rounds.loop import run_rounds

PACKAGE = Path(fedpl.__file__).parent


def test_the_servers_half_of_a_round_is_at_most_twenty_files(toy: Callable[..., Federation]) -> None:
    """Everything between drawing the clients and the recorded round, without local training."""
    rounds = run_rounds(toy(), 3)
    next(rounds)  # what is made once is not a round's
    seen: set[str] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            seen.add(path.relative_to(PACKAGE).as_posix())

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        next(rounds)
    finally:
        sys.setprofile(before)
    assert {"rounds/loop.py", "rounds/gathering.py", "server/step.py", "server/weighting.py"} <= seen
    clients = {path for path in seen if path.startswith("site/")}  # the toy executor's clients use some of it
    assert not {path for path in seen if path.startswith(("training/", "tasks/", "data/", "model/"))}
    assert len(seen - clients) <= 20, "\n".join(sorted(seen - clients))
