"""Sites behind Flower's SuperLink, as a crew: orders are pushed as messages, replies pulled as they come.

A grid is what Flower gives to a ServerApp.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from fedpl.errors import UserError
from fedpl.executors.crew import Done, Lost, Order, Raised, Reply
from fedpl.executors.envelope import content_of, message_to
from fedpl.executors.letters import decode, encode

_log = logging.getLogger(__name__)
_POLL = 0.2  # seconds


@runtime_checkable
class Grid(Protocol):
    """What is used of Flower's."""

    def get_nodes(self) -> Iterable[Any]: ...
    def push_messages(self, messages: Iterable[Any]) -> Iterable[str | None]: ...
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]: ...


class Node(NamedTuple):
    """A SuperNode.

    Attributes:
        number: Flower's id of it; where nodes have keys, the same for a key.
        key: Its public key, or its number where it has none.
    """

    number: int
    key: str


class Nodes:
    """A crew of SuperNodes; see `fedpl.executors.crew.Crew`.

    A message is known by its id alone: SuperLink answers for a node that is gone, under an id of its own.

    Args:
        grid: The way to them.
        nodes: In the order of the workers.
        pack: Makes a message of a node's number and bytes.
        unpack: Bytes of a reply, or why there are none.
        clock: Seconds since some moment.
        rest: Waits so many seconds between two looks.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Sequence[Node],
        pack: Callable[[int, bytes], Any] = message_to,
        unpack: Callable[[Any], bytes | str] = content_of,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self.size = len(nodes)
        self._grid = grid
        self._nodes = nodes
        self._pack = pack
        self._unpack = unpack
        self._clock = clock
        self._rest = rest
        self._asked: dict[str, int] = {}
        self._replies: deque[tuple[int, Reply]] = deque()

    def start(self, worker: int) -> None:
        """Nothing starts or ends at a site: what comes to earlier messages is not looked at any more."""
        self._asked = {message: who for message, who in self._asked.items() if who != worker}
        self._replies = deque(one for one in self._replies if one[0] != worker)

    def send(self, worker: int, order: Order) -> None:
        message = self._pack(self._nodes[worker].number, encode(order.arguments[0]))
        (number,) = self._grid.push_messages([message])
        if number is None:
            self._replies.append((worker, Lost("SuperLink took no message for it: it is not connected")))
        else:
            self._asked[number] = worker

    def next(self, timeout: float | None) -> tuple[int, Reply] | None:
        end = None if timeout is None else self._clock() + timeout
        while True:
            if self._replies:
                return self._replies.popleft()
            if self._asked:
                for message in self._grid.pull_messages(list(self._asked)):
                    worker = self._asked.pop(message.metadata.reply_to_message_id, None)
                    if worker is not None:  # else it came twice
                        self._replies.append((worker, self._reply(message)))
            if not self._replies:
                if end is not None and self._clock() >= end:
                    return None
                self._rest(_POLL)

    def close(self) -> None:
        self._asked.clear()

    def _reply(self, message: Any) -> Reply:
        found = self._unpack(message)
        if isinstance(found, str):
            return Lost(found)
        try:
            return Done(decode(found))
        except UserError as error:
            return Done(Raised(error))


def gather(
    grid: Grid,
    count: int,
    keys: Sequence[str],
    timeout: float | None,
    clock: Callable[[], float] = time.monotonic,
    rest: Callable[[float], None] = time.sleep,
) -> tuple[Node, ...]:
    """Wait until all sites are connected.

    Args:
        grid: The way to them.
        count: How many there have to be.
        keys: Of those with which a run began, in their order; empty: it begins.
        timeout: Seconds to wait; None: as long as it takes.
        clock: Seconds since some moment.
        rest: Waits so many seconds between two looks.

    Raises:
        UserError: If they do not come, or more than expected.
    """
    end, told = None if timeout is None else clock() + timeout, ""
    while True:
        there = {node.key: node for node in sorted(map(_node, grid.get_nodes()))}
        if keys and set(keys) <= set(there):
            return tuple(there[key] for key in keys)
        if not keys and len(there) == count:
            return tuple(there.values())
        if not keys and len(there) > count:
            raise UserError(
                f"executor.workers: {len(there)} nodes are connected, {count} were expected; set it to the "
                f"number of sites, or wait a minute if one was started anew without a key"
            )
        who = f"{sum(key in there for key in keys)} of those with which the run began" if keys else len(there)
        waits = f"{who} of {len(keys) or count} nodes are connected"
        if end is not None and clock() >= end:
            raise UserError(f"executor.timeout: after {timeout:g} s {waits}; start the others' SuperNodes")
        if waits != told:
            _log.warning("%s; waiting", waits)
        told = waits
        rest(1.0)


def _node(info: Any) -> Node:
    key = getattr(info, "public_key", b"")
    known = key.decode("ascii", "replace") if isinstance(key, bytes) else str(key)
    return Node(info.node_id, known.strip() or f"node {info.node_id}")
