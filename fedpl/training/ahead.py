"""What comes next is prepared while what is here is worked on."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

_T = TypeVar("_T")
_END: Any = object()


def ahead(items: Iterator[_T]) -> Generator[_T, None, None]:
    """The same items in the same order, the next one made by a thread while the caller has the present one.

    What making an item raises is raised where that item would have come. The thread ends with the last item,
    at an error, and when the generator is closed: then the item in work is finished and dropped.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(next, items, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, items, _END)
            yield item
