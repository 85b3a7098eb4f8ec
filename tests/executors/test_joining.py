"""Sites that do not fit, do not answer or send nonsense: named, and bounded."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedpl.errors import UserError
from fedpl.executors import errands
from fedpl.executors.crew import Done, Lost, Order, Raised, Reply
from fedpl.executors.joining import Pins, start_digest
from fedpl.executors.letters import Joining, Letter, Untold
from fedpl.executors.nodes import gather
from fedpl.executors.sites import Sites
from fedpl.objectives import Plain
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import Begin, Census, Company, Failure, Frozen, Member, Report, Work
from fedpl.records.scores import Metric

START = np.arange(5, dtype=np.float32)
LAYOUT = AdapterLayout.of({"l.0.q.lora_A": (1, 2), "l.0.q.lora_B": (3, 1)})
METRICS = (Metric("accuracy", "%"),)
SETTINGS = "seed: 0\nclient: {lr: 0.1}\n"


def joining(named: str, *clients: str, **changes: Any) -> Joining:
    members = tuple(Member(client, 8, None, "") for client in clients)
    census = Census(members, LAYOUT, np.empty(0, np.float32), METRICS, ("no", "yes"), "cpu")
    census = census._replace(**{k: changes.pop(k) for k in tuple(changes) if k in Census._fields})
    return Joining(named, census, start_digest(START.tobytes()), "base", SETTINGS, True)._replace(**changes)


def report(client: str, **changes: Any) -> Report:
    return Report(client, np.full(5, 2.0, np.float32), 8, 3, 0.5, {"test": {"accuracy": 0.5}})._replace(
        **changes
    )


class Told:
    """Sites that answer as they are told; time passes only while nothing comes."""

    def __init__(self, joinings: Sequence[Joining], answer: Callable[[int, Letter], Any]) -> None:
        self.size, self.joinings, self.answer = len(joinings), joinings, answer
        self.replies: deque[tuple[int, Reply]] = deque()
        self.letters: list[tuple[int, Letter]] = []
        self.now = 0.0

    def start(self, worker: int) -> None:
        self.replies = deque(one for one in self.replies if one[0] != worker)

    def send(self, worker: int, order: Order) -> None:
        (letter,) = order.arguments
        self.letters.append((worker, letter))
        match letter.order.verb:
            case "join":
                found: Any = Done(self.joinings[worker])
            case "start":
                found = Done(START)
            case _:
                found = self.answer(worker, letter)
        if isinstance(found, Lost):
            self.replies.append((worker, found))
        elif found is not None:
            self.replies.append((worker, Done(found)))

    def next(self, timeout: float | None) -> tuple[int, Reply] | None:
        if self.replies:
            return self.replies.popleft()
        assert timeout is not None, "this waits for ever"
        self.now += timeout
        return None

    def close(self) -> None: ...

    def orders(self, verb: str) -> list[tuple[int, Letter]]:
        return [one for one in self.letters if one[1].order.verb == verb]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Sites, Told]]:
    def make(
        answer: Callable[[int, Letter], Any] = lambda worker, letter: None,
        joinings: Sequence[Joining] = (joining("north", "a", "c"), joining("south", "b")),
        pins: Pins | None = None,
        settings: str = SETTINGS,
        shifts: bool = False,
        **options: Any,
    ) -> tuple[Sites, Told]:
        crew = Told(joinings, answer)
        monkeypatch.setattr(errands.time, "monotonic", lambda: crew.now)
        pins = pins or Pins("run", tuple(f"key {k}" for k in range(len(joinings))))
        return Sites(crew, settings, shifts, pins, **options), crew

    return make


def work(*clients: str) -> list[Work]:
    return [Work(client, 1, START, ("test",), Plain()) for client in clients]


def train(sites: Sites, *clients: str) -> list[Any]:
    sites.join()
    sites.tell(Begin("fedbip"))
    sites.tell(Frozen())
    return list(sites.train(work(*clients), sites.plan(work(*clients))))


def test_a_census_without_data(made: Any) -> None:
    sites, crew = made()
    census = sites.join()
    assert census.clients == ("a", "b", "c")
    np.testing.assert_array_equal(census.initial, START)
    assert len(crew.orders("start")) == 1, "θ₀ comes once"
    assert sites.plan(work("c", "b", "a")) == Company((("c", "a"), ("b",)), {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": "seed: 0\nclient: {lr: 0.2}\n"}, r"'south' was started with.*client.lr 0.1 ≠ 0.2"),
        (
            {"labels": ("bad", "good")},
            r"'south' has another list of labels than site 'north' \(bad, good, not",
        ),
        ({"base": "other"}, r"'south' has another frozen model than site 'north' \(other, not base"),
        ({"start": "other"}, r"'south' has another start θ₀ than site 'north'"),
        ({"layout": AdapterLayout.of({"x.lora_A": (1, 9)})}, r"'south' has another adapter layout"),
        ({"metrics": (Metric("rmse"),)}, r"'south' has another set of metrics"),
        ({"shifts": False}, r"'south' cannot change its frozen weights"),
        ({"site": "north"}, r"two sites call themselves 'north'"),
        ({"members": (Member("c", 8, None, ""),)}, r"client 'c' is at sites 'north', 'south'"),
        ({"members": ("c",)}, r"node with key 'key 1' has not joined: it sent something else"),
        (
            {
                "settings": "a: [",
            },
            r"'south' was started with other settings than the server \(its own cannot",
        ),
    ],
)
def test_a_site_that_does_not_fit_is_refused_by_name(
    made: Any, changes: dict[str, Any], message: str
) -> None:
    both = (joining("north", "a", "c"), joining("south", "b", **changes))
    sites, _ = made(joinings=both, shifts=True)
    with pytest.raises(UserError, match=message):
        sites.join()


def test_pins(tmp_path: Path, made: Any) -> None:
    path = tmp_path / "state" / "sites.json"
    made(pins=Pins("run", ("k0", "k1"), path))[0].join()
    assert not path.exists(), "there is no run directory yet"
    sites, _ = made(pins=Pins("run", ("k0", "k1"), path))
    sites.join()
    sites.tell(Begin("fedbip"))
    known = Pins.read(path)
    assert known is not None
    assert (known.run, known.keys) == ("run", ("k0", "k1"))
    made(pins=known)[0].join()
    other = (joining("north", "a"), joining("west", "b"))
    for joinings, keys, message in (
        (None, ("k1", "k0"), "'north' came with another key"),
        (other, ("k0", "k1"), "'south' was in the run when it began and has not joined"),
    ):
        pins = Pins("run", keys, path, known.before)
        sites, _ = made(pins=pins, **({} if joinings is None else {"joinings": joinings}))
        with pytest.raises(UserError, match=message):
            sites.join()
    path.write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        Pins.read(path)


def test_who_does_not_answer_is_named_in_time(made: Any) -> None:
    def answer(worker: int, letter: Letter) -> Any:
        return Done((report("b"),)) if worker == 1 else None

    sites, crew = made(answer, timeout=30.0)
    found = train(sites, "a", "b", "c")
    assert crew.now == 30.0
    assert [one.client for one in found if isinstance(one, Report)] == ["b"]
    failed = [one for one in found if isinstance(one, Failure)]
    assert [one.clients for one in failed] == [("a",), ("c",)]
    assert failed[0].reason == "site 'north': it had not answered after 30 s"


def test_what_is_lost_is_asked_again_and_no_more_than_so_often(made: Any) -> None:
    sites, crew = made(lambda worker, letter: Lost("its node is gone"), retries=2)
    found = train(sites, "b")
    assert [one.reason for one in found] == ["site 'south': its node is gone"]
    assert len(crew.orders("train")) == 3
    assert crew.now == 5 + 10
    assert sites.score(("a", "b"), np.zeros((2, 5), np.float32), "test") == {}


def test_a_site_that_was_started_anew_is_told(made: Any) -> None:
    holds: set[Any] = set()

    def answer(worker: int, letter: Letter) -> Any:
        holds.update((type(one), one[0]) for one in letter.notices)
        return Done((report("b"),)) if len(holds) == 2 else Untold("south")

    sites, crew = made(answer)
    assert len(train(sites, "b")) == 1
    assert len(crew.orders("train")) == 1, "what holds went with the work"
    assert len(list(sites.train(work("b"), sites.plan(work("b"))))) == 1
    assert crew.letters[-1][1].notices == (), "and is not said twice"
    holds.clear()
    assert len(list(sites.train(work("b"), sites.plan(work("b"))))) == 1
    assert len(crew.orders("train")) == 4
    sites, crew = made(lambda worker, letter: Untold("south"))
    assert "it sent something else" in train(sites, "b")[0].reason


@pytest.mark.parametrize(
    "nonsense",
    [
        report("a"),
        report("b", vector=[1.0]),
        report("b", examples=-1),
        report("b", loss="0.5"),
        report("b", loss=float("inf")),
        report("b", scores={"test": {"other": 1.0}}),
        report("b", memory=None),
        report("b", choice=0),
        "a report",
    ],
)
def test_nonsense_is_not_used(made: Any, nonsense: Any) -> None:
    sites, _ = made(lambda worker, letter: Done((nonsense,)))
    assert train(sites, "b") == []


def test_the_rest_of_what_a_site_may_say(made: Any) -> None:
    saying: list[Any] = [Done((Failure(("b", "a"), "no"),))]
    sites, _ = made(lambda worker, letter: saying[0])

    def trained(said: Any, into: Any = None) -> Any:
        saying[0] = said
        (found,) = sites.train(work("b"), sites.plan(work("b")), into)
        return found

    (found,) = train(sites, "b")
    assert found.clients == ("b",)
    for said in (Raised(UserError("its memory is gone")), Done("what"), Done(None), "what"):
        assert trained(said).reason.startswith("site 'south': ")
    for said in (Done({"a": {"accuracy": 1.0}}), Done({"b": {"rmse": 1.0}}), Done(1)):
        saying[0] = said
        assert sites.score(("b",), np.zeros((1, 5), np.float32), "test") == {}
    row = np.zeros(5, np.float32)
    assert trained(Done((report("b"),)), {"b": row}).vector is row
    np.testing.assert_array_equal(row, 2.0)
    odd = trained(Done((report("b", vector=np.ones(7, np.float32)),)), {"b": row})
    assert len(odd.vector) == 7, "whoever gathers names it"


def test_nodes_are_waited_for_by_their_keys() -> None:
    class Grid:
        times = 0

        def get_nodes(self) -> list[Any]:
            Grid.times += 1
            node = type("Info", (), {})
            found = [node(), node(), node()]
            for number, one in enumerate(found):
                one.node_id, one.public_key = 9 - number, f"key {number}".encode()
            return found[: min(Grid.times, 3)]

        def push_messages(self, messages: Any) -> list[str | None]: ...  # type: ignore[empty-body]
        def pull_messages(self, message_ids: Any) -> list[Any]: ...  # type: ignore[empty-body]

    now = [0.0]

    def rest(seconds: float) -> None:
        now[0] += seconds

    clock: Callable[[], float] = lambda: now[0]  # noqa: E731
    found = gather(Grid(), 3, (), 60.0, clock, rest)
    assert [node.number for node in found] == [7, 8, 9]
    found = gather(Grid(), 3, ("key 2", "key 0"), 60.0, clock, rest)
    assert [node.key for node in found] == ["key 2", "key 0"]
    with pytest.raises(UserError, match="3 nodes are connected, 2 were expected"):
        gather(Grid(), 2, (), 60.0, clock, rest)
    with pytest.raises(UserError, match="after 60 s 3 of 4 nodes are connected"):
        gather(Grid(), 4, (), 60.0, clock, rest)
