"""A grid for tests: letters go to real doors of sites in this process; it loses, repeats and reorders."""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

from fedpl.executors.door import Door, knock
from fedpl.executors.resident import Resident


@dataclass
class Post:
    """What Flower's grid does, with the folder of each node's site.

    Attributes:
        make: Makes the resident of a site, by its place.
        folders: Of the sites.
        faults: What happens to a message, of which one is drawn each time.
        heard: All bytes that came from the sites.
        met: How often each fault was.
        absent: Places of nodes that do not answer.
        keys: Public keys.
    """

    make: Callable[[int], Resident]
    folders: list[Path]
    faults: tuple[str, ...] = ("",)
    seed: int = 0
    heard: list[bytes] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    absent: set[int] = field(default_factory=set)
    keys: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.waiting: deque[Any] = deque()
        self.number = 0
        self.keys = self.keys or [f"key {place}".encode() for place in range(len(self.folders))]
        self.doors: dict[int, Door] = {}
        for place in range(len(self.folders)):
            self.open(place)

    def open(self, place: int) -> None:
        """A site's process is started, or started anew."""
        if place in self.doors:
            self.doors[place].close()
        self.folders[place].mkdir(exist_ok=True)
        self.doors[place] = Door(self.folders[place], self.make(place))
        Thread(target=self._serve, args=(self.doors[place],), daemon=True).start()

    @staticmethod
    def _serve(door: Door) -> None:
        door.serve()

    def close(self) -> None:
        for door in self.doors.values():
            door.close()

    def get_nodes(self) -> Iterable[Any]:
        there = (place for place in range(len(self.folders)) if place not in self.absent)
        return [SimpleNamespace(node_id=100 + place, public_key=self.keys[place]) for place in there]

    def push_messages(self, messages: Iterable[Any]) -> list[str | None]:
        return [self._push(*message) for message in messages]

    def _push(self, node: int, letter: bytes) -> str | None:
        self.number += 1
        number, place = f"message {self.number}", node - 100
        if place in self.absent:
            return None
        fault = self.draw.choice(self.faults)
        self.met[fault] += 1
        if fault == "lost before":
            return self._reply(number, "its node is gone")
        if fault == "started anew":
            self.open(place)
        answer = knock(self.folders[place], letter)
        self.heard.append(answer)
        if fault == "lost after":
            return self._reply(number, "its answer is gone")
        if fault == "twice":
            self._reply(number, answer)
        return self._reply(number, answer)

    def _reply(self, number: str, content: bytes | str) -> str:
        metadata = SimpleNamespace(reply_to_message_id=number)
        self.waiting.append(SimpleNamespace(metadata=metadata, content=content))
        return number

    def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
        wanted = set(message_ids)
        found = [one for one in self.waiting if one.metadata.reply_to_message_id in wanted]
        self.waiting = deque(one for one in self.waiting if one not in found)
        self.draw.shuffle(found)
        return found


def pack(node: int, letter: bytes) -> tuple[int, bytes]:
    return node, letter


def unpack(message: Any) -> bytes | str:
    content: bytes | str = message.content
    return content
