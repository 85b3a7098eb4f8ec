"""Files that are either whole or absent, and that are known to be whole when they are read."""

import fcntl
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
from safetensors import SafetensorError, safe_open

from fedpl.errors import UserError

_CHECKSUM = "checksum"
TYPES = {  # of safetensors, by NumPy's
    "|b1": "BOOL",
    "|u1": "U8",
    "|i1": "I8",
    "<u2": "U16",
    "<i2": "I16",
    "<f2": "F16",
    "<u4": "U32",
    "<i4": "I32",
    "<f4": "F32",
    "<u8": "U64",
    "<i8": "I64",
    "<f8": "F64",
}
_CHUNK = 2**22  # bytes of a tensor at a time
_LONGEST = 255  # bytes of a name, which most file systems take


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why a file or folder cannot be written: full disk, missing rights, folder gone.

    Raises:
        UserError: For every OSError inside.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise UserError(
            f"cannot write {path}: {reason}; what was written before is intact: mend this and go on with "
            f"--resume"
        ) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from working on the same folder; the lock goes with the process.

    Raises:
        UserError: If one does.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is working on {folder}; let it finish, or end it first") from None
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of another one, whole or not at all, and survives a power cut then.

    It is written under a temporary name, forced to disk and renamed; then its name is forced to disk.

    Raises:
        UserError: If it cannot be written; the file is then what it was.
    """
    temporary = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            move(temporary, path)
        except OSError:
            _discard(temporary)
            raise


def move(old: Path, new: Path) -> None:
    """Give a file or folder another name beside its old one, on disk when this returns."""
    os.replace(old, new)
    sync_folder(new.parent)


def make_folder(path: Path) -> None:
    """Make a folder, unless it is there; it is on disk when this returns."""
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force a folder's names to disk: until then a power cut takes what is new or renamed in it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write an array as ``.npy``, as `replacing` does."""
    with replacing(path) as file:
        np.save(file, values, allow_pickle=False)


def write_rows(path: Path, rows: Iterable[np.ndarray], shape: tuple[int, int], dtype: type) -> None:
    """Write a matrix as ``.npy``, row by row, as `replacing` does."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    with replacing(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for row in rows:
            file.write(np.require(row, requirements="C").data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any parser reads: no NaN or infinity."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def write_tensors(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    settle: Callable[[], None] = lambda: None,
) -> None:
    """Write a safetensors file whose metadata hold a checksum of everything in it.

    Piece by piece: the library would hold the whole file in memory, or leave one behind when killed.

    Args:
        path: The file.
        tensors: By name.
        metadata: By name.
        settle: Called after each tensor, twice: one that lies on disk need not stay in memory.

    Raises:
        UserError: If it cannot be written; the file is then what it was.
    """
    wide_first = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # all are aligned then
    contiguous = {name: np.require(tensors[name], requirements="C") for name in wide_first}
    header: dict[str, Any] = {"__metadata__": {**metadata, _CHECKSUM: _digest(tensors, metadata, settle)}}
    place = 0
    for name, tensor in contiguous.items():
        span = [place, place := place + tensor.nbytes]
        header[name] = {"dtype": TYPES[tensor.dtype.str], "shape": tensor.shape, "data_offsets": span}
    begin = json.dumps(header).encode()
    begin += b" " * (-len(begin) % 8)
    with replacing(path) as file:
        file.write(len(begin).to_bytes(8, "little") + begin)
        for tensor in contiguous.values():
            for piece in pieces(tensor):
                file.write(piece)
            settle()


def read_tensors(path: Path, mapped: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata that `write_tensors` wrote.

    Args:
        path: The file.
        mapped: Whether the tensors stay in the file, which must not change while they are used.

    Raises:
        UserError: If the file is absent, was not written by fedpl or is damaged anywhere.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            names = list(file.keys())
            tensors = _mapped(path) if mapped else {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a file of fedpl: {error}") from error
    if metadata.pop(_CHECKSUM, None) != _digest(tensors, metadata):
        raise UserError(f"{path} is damaged: its checksum does not fit its content")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, str]:
    """What a file that `write_tensors` wrote says of itself; its tensors are not looked at.

    Raises:
        UserError: If it is absent or no such file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read as a file of fedpl: {error}") from error


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """Views of the tensors of a safetensors file that the library has found to be one."""
    content = np.memmap(path, np.uint8, "c")  # torch takes nothing that cannot be written to
    begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:begin].tobytes())
    types = {name: np.dtype(kind) for kind, name in TYPES.items()}
    return {
        name: content[begin + one["data_offsets"][0] : begin + one["data_offsets"][1]]
        .view(types[one["dtype"]])
        .reshape(one["shape"])
        for name, one in header.items()
        if name != "__metadata__"
    }


def quoted(client: str) -> str:
    """A client's id as the name of a file or folder: it cannot lead elsewhere, and no two ids share one.

    What is longer than file systems take is cut and ends in a digest, behind a ``%~`` that no quoting gives.
    """
    name = quote(client, safe=" @+=,")
    name = name.replace(".", "%2E") if name.startswith(".") else name
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST // 2]}%~{hashlib.blake2b(client.encode(), digest_size=16).hexdigest()}"


def pieces(array: np.ndarray) -> Iterator[memoryview]:
    """An array's bytes, some at a time; of one in a file no more than these are in memory."""
    flat = np.require(array, requirements="C").reshape(-1).view(np.uint8)
    for start in range(0, len(flat), _CHUNK):
        yield flat[start : start + _CHUNK].data
        release(array)


def release(*arrays: Any) -> None:
    """Give back the memory that holds what has been read of arrays in files, or written to them; they stay.

    Other arrays are left as they are.
    """
    for array in arrays:
        mapping = getattr(array, "_mmap", None)  # NumPy says it nowhere else
        if mapping is not None:
            mapping.madvise(mmap.MADV_DONTNEED)


def _digest(
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    settle: Callable[[], None] = lambda: None,
) -> str:
    """BLAKE2b over names, types, shapes, numbers and metadata."""
    digest = hashlib.blake2b(json.dumps(sorted(metadata.items())).encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        for piece in pieces(tensor):
            digest.update(piece)
        settle()
    return digest.hexdigest()


def _discard(path: Path) -> None:
    """Remove what is half written, where that is still possible."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
