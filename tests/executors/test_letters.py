"""Letters hold records and never code; a door opens to who knows its key."""

import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.connection import Client
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from fedpl.errors import UserError
from fedpl.executors.crew import Done, Order, Raised
from fedpl.executors.crossing import arrays, tensors
from fedpl.executors.door import Door, knock, secret_of
from fedpl.executors.letters import Letter, decode, encode
from fedpl.objectives import Ditto, Plain
from fedpl.records.layout import AdapterLayout
from fedpl.records.messages import Begin, Census, Failure, Frozen, Member, Report, Seconds, Work
from fedpl.records.scores import Metric


def test_what_is_written_is_read() -> None:
    start = torch.randn(5)
    layout = AdapterLayout.of({"l.0.q.lora_A": (1, 2), "l.0.q.lora_B": (3, 1)}, scale=2.0)
    members = (Member("a <&> ä", 3, {"accuracy": 0.5}, "d"), Member("b", 4, None, "e", "g"))
    census = Census(members, layout, start, (Metric("accuracy", "%"),), ("no", "yes"), "cpu")
    work = tuple(Work(client, 2, start, ("test",), Ditto(), memory="m") for client in "ab")
    notices = (Begin("ditto"), Frozen("r", torch.ones(2, dtype=torch.bfloat16)))
    letter = Letter("run", "ditto", "r", notices, Order("train", (work,)))
    found = tensors(decode(encode(arrays(letter))))
    (one, two), read = found.order.arguments[0], decode(encode(arrays(Done(census)))).value
    assert one.received.equal(start)
    assert two.received is one.received, "what several are sent travels once"
    assert one.received.data_ptr() % 64 == 0
    assert (one.objective, one.splits, one.round, one.memory) == (Ditto(), ("test",), 2, "m")
    assert found.notices[0] == notices[0]
    assert found.notices[1].residual.equal(notices[1].residual)
    assert found.notices[1].residual.dtype == torch.bfloat16
    np.testing.assert_array_equal(read.initial, start)
    assert read._replace(initial=None) == census._replace(initial=None)
    report = Report("a", start, 3, 4, float("nan"), {"test": {"accuracy": 1.0}}, Seconds(1.0, 0.0, 2.0))
    (again,) = decode(encode(arrays(Done([report])))).value
    assert again._replace(vector=None, loss=0) == report._replace(vector=None, loss=0)
    said = decode(encode(Raised(UserError("no"))))
    assert isinstance(said.error, UserError)
    assert decode(encode(Failure(("a",), "why", ValueError("x")))).error.args == ("x",)


BITS = np.arange(2**16, dtype=np.uint16)  # NaN in all its forms, too


@pytest.mark.parametrize(
    "tensor",
    [
        torch.from_numpy(BITS).view(torch.bfloat16),
        torch.from_numpy(BITS).view(torch.float16).view(256, 256).t(),
        torch.tensor(2),
        torch.zeros(0, 4),
        torch.nn.Parameter(torch.ones(3, dtype=torch.float64)),
        torch.tensor([True, False]),
    ],
)
def test_what_a_site_holds_crosses_bit_for_bit(tensor: torch.Tensor) -> None:
    there = arrays([tensor])
    (back,) = tensors(decode(encode(there)))
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert back.data_ptr() % 64 == 0
    one, other = (values.detach().contiguous().flatten().view(torch.uint8) for values in (tensor, back))
    assert one.equal(other)
    (still,) = decode(encode(there))
    assert still.dtype == (
        ml_dtypes.bfloat16 if tensor.dtype == torch.bfloat16 else tensor.detach().numpy().dtype
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Order("train")), "not one of this version"),
        (b"", "not one of this version"),
        (encode(Order("train"))[:-3], "cannot be read"),
        (encode(Order("train")).replace(b"Order", b"Popen"), "cannot be read: KeyError: 'Popen'"),
        (encode(Plain()).replace(b"fedpl.objectives.Plain", b"subprocess_32.Popenxyz"), "is '"),
        (encode(Order("a", (np.ones(2),))).replace(b'"tensor": 0', b'"tensor": 7'), "cannot be read"),
    ],
)
def test_what_is_no_letter_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode(content)


def test_what_is_no_record_is_not_written() -> None:
    with pytest.raises(TypeError, match="cannot hold Thread"):
        encode(threading.Thread())


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    folder = tmp_path / "site"
    folder.mkdir()
    with closing(Door(folder, lambda content: content[::-1])) as found:
        threading.Thread(target=found.serve, daemon=True).start()
        yield found


def test_a_door(door: Door, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert knock(folder, b"abc") == b"cba"
    with Client(str(folder / "door"), "AF_UNIX", authkey=(folder / "door.key").read_bytes()) as left:
        left.send_bytes(b"does not wait")
    (tmp_path / "thief").mkdir()
    (tmp_path / "thief" / "door").symlink_to(folder / "door")
    (tmp_path / "thief" / "door.key").write_bytes(b"x" * 32)
    with pytest.raises(ConnectionError, match="no site answers at"):
        knock(tmp_path / "thief", b"abc")
    with pytest.raises(ConnectionError, match=r"is python -m fedpl\.site there"):
        knock(tmp_path / "nobody", b"abc")
    assert knock(folder, b"x" * 3_000_000)[:1] == b"x", "after all that"
    assert (folder / "door.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "door").stat().st_mode & 0o777 == 0o600
    with pytest.raises(UserError, match="too long for a socket"):
        Door(tmp_path / ("x" * 100), bytes)


def test_a_secret_stays_or_is_missed(tmp_path: Path) -> None:
    first = secret_of(tmp_path / "secret")
    assert len(first) == 32
    assert secret_of(tmp_path / "secret") == first
    (tmp_path / "secret").write_bytes(b"")
    with pytest.raises(UserError, match="holds no secret"):
        secret_of(tmp_path / "secret")


def test_who_knocks_imports_next_to_nothing() -> None:
    program = "import sys, fedpl.executors.envelope as e; e.at_the_door; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "jax", "numpy", "lightning", "transformers"} & set(done.stdout.split())
