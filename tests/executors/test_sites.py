"""Sites of other organisations: letters through real doors give the run that one process gives."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import fedpl
from fedpl.cli import make_parser, read
from fedpl.config import Config, with_changes
from fedpl.data import TextFiles
from fedpl.errors import UserError
from fedpl.executors import errands
from fedpl.executors.crew import Order
from fedpl.executors.crossing import arrays
from fedpl.executors.joining import Pins
from fedpl.executors.letters import Letter, Untold, decode, encode
from fedpl.executors.nodes import Nodes, gather
from fedpl.executors.protocol import Executor
from fedpl.executors.sites import Sites
from fedpl.files import quoted
from fedpl.flower import serve
from fedpl.objectives import Plain
from fedpl.records.choice import Choice
from fedpl.records.messages import Begin, Frozen, Work
from fedpl.records.results import RunSummary
from fedpl.runs.experiment import run
from fedpl.runs.prepared import Prepared, prepare
from fedpl.runs.residence import resident
from fedpl.runs.sharing import agreed, shifts
from fedpl.runs.sites import here
from tests.conftest import small_rows, write_csv
from tests.executors.doors import Post, pack, unpack
from tests.executors.test_other_process import JOBS, one_thread

__all__ = ["one_thread"]
NAMES = ("north", "south", "west")
CLIENTS = ("one-a", "two-a", "three-b")


@pytest.fixture
def config(small_run: list[str]) -> Config:
    lean = {"baselines": [], "rounds": 2, "tracking.plots": False, "store_vectors": True}
    return with_changes(read(make_parser("fit", ""), small_run), lean | {"client.cohort_size": 1})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "_PAUSE", 0.0)
    monkeypatch.setattr("fedpl.executors.nodes._POLL", 0.001)


class World:
    """Three organisations with a table each."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.opened: list[Post] = []
        for name, client in zip(NAMES, CLIENTS, strict=True):
            write_csv(folder / f"{name}.csv", small_rows((client,)))

    def own(self, place: int) -> Config:
        return with_changes(self.config, {"data.paths": [str(self.folder / f"{NAMES[place]}.csv")]})

    def post(self, **faults: Any) -> Post:
        def make(place: int) -> Any:
            return resident(self.changed.get(place, self.own(place)), NAMES[place], folders[place])

        self.changed: dict[int, Config] = faults.pop("changed", {})
        folders = [self.folder / name for name in NAMES]
        self.opened.append(Post(make, folders, **faults))
        return self.opened[-1]

    def executor(self, post: Post, run_dir: Path, **options: Any) -> Sites:
        path = run_dir / "state" / "sites.json"
        known = Pins.read(path)
        nodes = gather(post, 3, () if known is None else known.keys, 0.0)
        pins = known or Pins(f"{run_dir.name}-1", tuple(node.key for node in nodes), path)
        crew = Nodes(post, nodes, pack, unpack)
        return Sites(crew, agreed(self.config), shifts(self.config), pins, **options)


@pytest.fixture
def world(config: Config, tmp_path: Path) -> Iterator[World]:
    made = World(config, tmp_path)
    yield made
    for post in made.opened:
        post.close()


def numbers(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {path.name: np.load(path) for path in sorted(folder.glob("vectors/*.npy"))}
    state = sorted(folder.glob("state/*.safetensors"))
    return found | {f"{p.name} {name}": v.numpy() for p in state for name, v in load_file(p).items()}


def same(one: Path, other: Path) -> None:
    first, second = numbers(one), numbers(other)
    assert first.keys() == second.keys()
    assert len(first) > 3
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


@pytest.mark.parametrize("job", ["ditto", "flora"])
def test_sites_give_the_same_run_whatever_happens_to_letters(
    job: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.config = with_changes(world.config, JOBS[job])
    alone = run(replace(world.config, run_dir=str(tmp_path / "alone")), Console(quiet=True))
    faults = ("", "", "lost before", "lost after", "twice", "started anew")
    post = world.post(faults=faults, seed=3)
    executor = world.executor(post, tmp_path / "there", retries=20)
    assert isinstance(executor, Executor)
    there = replace(world.config, run_dir=str(tmp_path / "there"), rounds=1)
    run(there, Console(quiet=True), prepared=Prepared(executor))
    # A second server process goes on.
    executor = world.executor(post, tmp_path / "there", retries=20)
    same(
        alone, run(world.config, Console(quiet=True), resume=tmp_path / "there", prepared=Prepared(executor))
    )
    assert set(post.met) == set(faults)
    own = next((world.folder / "south" / "runs").iterdir())
    assert own.name == "there-1"
    answer = fedpl.load(own, "two-a").predict(["the room was good"])
    assert answer == fedpl.load(alone, "two-a").predict(["the room was good"])


def test_clients_choose_at_their_sites(world: World, tmp_path: Path) -> None:
    """As in one process, whatever happens to letters; the server does not learn of it."""
    guarded = {"client.guard": "validation", "baselines": ["local"], "client.lr": 0.02, "client.epochs": 8}
    world.config = with_changes(world.config, guarded | {"method": "fedavg"})  # which harms who differs
    alone = run(replace(world.config, run_dir=str(tmp_path / "alone")), Console(quiet=True))
    post = world.post(faults=("", "", "lost before", "lost after", "twice", "started anew"), seed=5)
    there = replace(world.config, run_dir=str(tmp_path / "there"))
    executor = world.executor(post, tmp_path / "there", retries=20)
    run(there, Console(quiet=True), prepared=Prepared(executor))
    same(alone, tmp_path / "there")
    chosen = {}
    for name, client in zip(NAMES, CLIENTS, strict=True):
        (own,) = (world.folder / name / "runs").iterdir()
        chosen[client] = Choice.read(own / "best" / client)
        assert chosen[client] == Choice.read(alone / "best" / client)
        texts = ["the room was good", "an awful gate"]
        mine, its = (fedpl.load(folder, client, model="best").logits(texts) for folder in (own, alone))
        assert torch.equal(mine, its)
    assert {choice.model for choice in chosen.values()} > {"aggregated"}, "nobody chose anything else"
    assert not (tmp_path / "there" / "best").exists()
    assert all(own.choice is None for own in RunSummary.read(tmp_path / "there").clients.values())


def letter(start: Any, run: str = "run", round: int = 1) -> bytes:
    work = Work("one-a", round, start, (), Plain(), run="fedbip")
    return encode(arrays(Letter(run, "fedbip", "", (Begin("fedbip"), Frozen()), Order("train", ((work,),)))))


def test_noise_is_a_sites_own(world: World, config: Config) -> None:
    """Known to nobody who knows the seed, another for every start and run, the same for the same work."""
    world.config = with_changes(config, {"privacy.clip": 1.0, "privacy.noise_multiplier": 1000.0})
    folders = [world.folder / name for name in ("x", "y")]
    for folder in folders:
        folder.mkdir()
    one = resident(world.own(0), "north", folders[0])
    census = decode(one(encode(Letter("run", "", "", (), Order("join"))))).value.census
    start = decode(one(encode(Letter("run", "", "", (), Order("start"))))).value

    def noise(who: Any, content: bytes) -> np.ndarray:
        (report,) = decode(who(content)).value
        return np.asarray(report.vector / 1000.0)  # of which the task vector is a thousandth at most

    first = noise(one, letter(start))
    again = resident(world.own(0), "north", folders[0])
    assert np.array_equal(noise(again, letter(start)), first), "work that was lost is done again"
    others = [noise(one, letter(start + 0.01)), noise(one, letter(start, run="other"))]
    others.append(noise(resident(world.own(0), "north", folders[1]), letter(start)))
    others.append(noise(one, letter(start, round=2)))
    known = here(world.own(0))
    known.tell(Begin("fedbip"))
    work = [Work("one-a", 1, torch.from_numpy(start), (), Plain(), run="fedbip")]
    (report,) = known.train(work, known.plan(work))
    others.append(report.vector.numpy() / 1000.0)
    for other in others:
        assert np.linalg.norm(other - first) > 0.5 * np.linalg.norm(first) * 2**0.5
    assert census.initial.size == 0
    assert census.members[0].origin != known.join().members[0].origin, "nor can the data be guessed"


def test_a_site_says_what_it_can_and_no_more(world: World, caplog: pytest.LogCaptureFixture) -> None:
    folder = world.folder / "x"
    folder.mkdir()
    site = resident(world.own(0), "north", folder)
    start = torch.zeros(site._here.join().layout.size)
    told = letter(start)
    assert site(told) == site(told)
    for content, message in (
        (b"GET / HTTP/1.1", "not one of this version"),
        (encode(Order("join")), "is no order to a site"),
        (encode(Letter("run", "", "", (), Order("site"))), "is no order to a site"),
        (encode(Letter("run", "", "", (), Order("_run_folder", ("x",)))), "is no order to a site"),
    ):
        assert message in str(decode(site(content)).error)
    other = encode(Letter("run", "ditto", "", (), Order("train", ((),))))
    assert decode(site(other)) == Untold("north")
    caplog.clear()
    secret = Work("the room was good", 1, start.numpy(), (), Plain(), run="fedbip")
    (failed,) = [decode(site(encode(Letter("run", "fedbip", "", (), Order("train", ((secret,),))))))]
    assert str(failed.error) == "KeyError; the log of site 'north' says more"
    assert "the room was good" in caplog.text
    away = encode(Letter("../../up", "m", "", (Begin("../m"),), Order("train", ((),))))
    decode(site(away))
    assert {path.name for path in (folder / "runs").iterdir()} == {"run", quoted("../../up")}


def test_a_server_app_refuses_what_it_cannot_do(tmp_path: Path, small_run: list[str]) -> None:
    folder = str(tmp_path / "run")
    post = Post(lambda place: None, [])  # type: ignore[arg-type,return-value]
    flower = "--executor.kind flower"
    for words, where, message in (
        ("--config debug", folder, "executor.kind: flower in a ServerApp, got here"),
        (flower, "run", "run-dir: expected an absolute path"),
        (f"{flower} --faults.hostile 0.2", folder, "faults.hostile"),
        (f"{flower} --executor.threads 2", folder, "executor.threads"),
        (f"{flower} --executor.timeout 0.001", folder, "0 of 2 nodes are connected"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            serve(post, {"fedpl": words, "run-dir": where})
    with pytest.raises(UserError, match="start the run with flwr run"):
        prepare(read(make_parser("fit", ""), [*small_run, "--executor.kind", "flower"]))


def test_the_server_needs_no_data_and_a_silent_site_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.config = with_changes(world.config, {"participation.on_client_error": "skip", "rounds": 1})
    post = world.post()
    executor = world.executor(post, tmp_path / "run", retries=0)
    executor.join()
    post.absent.add(1)

    def forbidden(*arguments: object) -> None:
        raise AssertionError("the server asked for the clients' data or their model")

    monkeypatch.setattr(TextFiles, "load", forbidden)
    monkeypatch.setattr("fedpl.model.base.load_base", forbidden)
    monkeypatch.setattr("fedpl.model.pretrained.load_tokenizer", forbidden)
    console = Console(record=True, width=200)
    where = replace(world.config, run_dir=str(tmp_path / "run"))
    run(where, console, prepared=Prepared(executor, notes=executor.notes))
    said = console.export_text()
    assert "3 sites with their clients: north (1), south (1), west (1)" in said
    assert "adapters:" not in said
    (record,) = fedpl.Run.open(tmp_path / "run").records
    assert record.rejected == {"two-a": "site 'south': SuperLink took no message for it: it is not connected"}
    texts = [row["text"].encode() for row in small_rows(CLIENTS)]
    assert not [text for text in texts if any(text in heard for heard in post.heard)]


SERVER = """
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from fedpl.cli import make_parser, read
from fedpl.executors.door import knock
from fedpl.executors.joining import Pins
from fedpl.executors.nodes import Nodes, gather
from fedpl.executors.sites import Sites
from fedpl.flower import run, shifts
from fedpl.runs.prepared import Prepared
from fedpl.runs.sharing import agreed


class Grid:
    def __init__(self, folders):
        self.folders, self.answers, self.sent = folders, {}, 0

    def get_nodes(self):
        places = range(len(self.folders))
        return [SimpleNamespace(node_id=place, public_key=f"key {place}".encode()) for place in places]

    def push_messages(self, messages):
        ((place, letter),) = messages
        self.sent += 1
        self.answers[str(self.sent)] = knock(self.folders[place], letter)
        return [str(self.sent)]

    def pull_messages(self, message_ids):
        return [
            SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=one), content=self.answers[one])
            for one in message_ids
        ]


where, rounds, folders, words = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:6], sys.argv[6:]
config, path = read(make_parser("fit", ""), words), where / "state" / "sites.json"
known, grid = Pins.read(path), Grid([Path(folder) for folder in folders])
nodes = gather(grid, 3, () if known is None else known.keys, 0.0)
pins = known or Pins("there-1", tuple(node.key for node in nodes), path)
crew = Nodes(grid, nodes, lambda node, letter: (node, letter), lambda message: message.content)
sites = Sites(crew, agreed(config), shifts(config), pins)
there = replace(config, run_dir=str(where), rounds=rounds)
run(there, Console(quiet=True), resume=None if known is None else where, prepared=Prepared(sites))
found = {"lightning", "peft", "torch", "transformers"} & set(sys.modules)
sys.exit(f"the server imports {sorted(found)}" if found else 0)
"""


@pytest.mark.parametrize("settings", [{"method": "fedbip", "server.storage": "disk"}, {"method": "flora"}])
def test_the_server_of_sites_imports_nothing_that_trains(
    settings: dict[str, str], world: World, small_run: list[str], tmp_path: Path
) -> None:
    """Nor does a second one, which goes on; and the run is that of one process, bit for bit."""
    world.config = with_changes(world.config, settings)
    alone = run(replace(world.config, run_dir=str(tmp_path / "alone")), Console(quiet=True))
    post, there = world.post(), tmp_path / "there"
    lean = ["--baselines=[]", "--rounds=2", "--tracking.plots=false", "--store_vectors=true"]
    own = [f"--{name}={value}" for name, value in settings.items()]
    words = [*small_run, *lean, "--client.cohort_size=1", *own]
    for rounds in ("1", "2"):
        command = [sys.executable, "-c", SERVER, str(there), rounds, *map(str, post.folders), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    same(alone, there)
