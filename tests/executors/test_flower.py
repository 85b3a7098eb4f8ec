"""Letters in Flower's own messages; skipped where Flower is not installed, which has its own environment."""

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedpl.executors.door import Door
from fedpl.executors.envelope import at_the_door, content_of, message_to
from fedpl.executors.nodes import Grid

flwr: Any = pytest.importorskip("flwr.app", reason="needs the extra 'flower': see docs/howto/flower.md")


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's processes know which task they are."""
    known = pytest.importorskip("flwr.supercore.task_identity").TaskIdentity
    for name in ("task_id", "run_id", "node_id"):
        monkeypatch.setattr(known, f"_{name}", 1)


def test_a_letter_there_and_back(tmp_path: Path) -> None:
    asked = message_to(7, b"a letter")
    assert asked.metadata.dst_node_id == 7
    assert content_of(asked) == b"a letter"
    with closing(Door(tmp_path, lambda content: content.upper())) as door:
        threading.Thread(target=door.serve, daemon=True).start()
        assert content_of(at_the_door(asked, str(tmp_path))) == b"A LETTER"
    absent = content_of(at_the_door(asked, str(tmp_path / "nobody")))
    assert isinstance(absent, str)
    assert "is python -m fedpl.site there" in absent


def test_errors_and_other_content_are_told() -> None:
    asked = message_to(7, b"a letter")
    failed = flwr.Message(flwr.Error(code=3, reason="node is gone"), reply_to=asked)
    assert content_of(failed) == "its node did not answer (node is gone)"
    other = flwr.Message(flwr.RecordDict(), dst_node_id=7, message_type="query")
    assert content_of(other) == "its node answered something else"


def test_flowers_grid_has_what_is_used_of_it() -> None:
    from flwr.serverapp import Grid as Flowers

    names = [name for name in vars(Grid) if not name.startswith("_")]
    assert names
    assert all(hasattr(Flowers, name) for name in names)
