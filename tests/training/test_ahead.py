"""What is made ahead is what would have been made, errors included, and nothing of it stays."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from fedpl.training.ahead import ahead


def threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_the_same_items_in_the_same_order() -> None:
    assert list(ahead(iter(range(50)))) == list(range(50))
    assert list(ahead(iter([None, 0, None]))) == [None, 0, None]
    assert list(ahead(iter(()))) == []
    assert threads() == 0


def test_the_next_item_is_made_while_the_present_one_is_used() -> None:
    made = [threading.Event() for _ in range(3)]

    def items() -> Iterator[int]:
        for i, event in enumerate(made):
            event.set()
            yield i

    with closing(ahead(items())) as stream:
        assert next(stream) == 0
        assert made[1].wait(10)
        assert not made[2].is_set(), "one item ahead, no more"
    assert threads() == 0


def test_an_error_comes_in_its_turn_and_ends_the_thread() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("bad text")

    stream = ahead(items())
    assert next(stream) == 1
    with pytest.raises(RuntimeError, match="bad text"):
        next(stream)
    assert threads() == 0


def test_what_fails_while_an_item_is_in_work_leaves_nothing_running() -> None:
    def use() -> None:
        with closing(ahead(iter(range(9)))) as stream:
            next(stream)
            raise RuntimeError("the step")

    with pytest.raises(RuntimeError, match="the step"):
        use()
    assert threads() == 0
