"""A model that comes as one GGUF file, as a Hugging Face folder in the user's cache. Imports no torch."""

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.files import move

if TYPE_CHECKING:
    import torch
    import transformers
else:
    torch, transformers = map(deferred, ("torch", "transformers"))

_log = logging.getLogger(__name__)


def digest_of(file: Path) -> str:
    """SHA-256 of a file, which is read once in a process unless it changes."""
    known = file.stat()
    return _digest(file, known.st_size, known.st_mtime_ns)


def target(file: Path) -> Path:
    """Where a GGUF file's converted model lies, or will: the name says which weights."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "fedpl" / "models" / f"{file.stem}-{digest_of(file)[:16]}"


def missing(file: Path) -> str | None:
    """What is missing for a conversion that is still to be done, in words; None: nothing."""
    if find_spec("gguf") is not None or target(file).is_dir():
        return None
    return f"model.path: reading {file.name} needs the package gguf; pip install 'fedpl[gguf]'"


def converted(file: Path) -> Path:
    """The folder with a GGUF file's model, made at the first call; other processes wait for it.

    Args:
        file: One GGUF file that holds the whole model and its tokenizer. Its numbers become float32.

    Raises:
        UserError: If the file cannot be read as a model, or the cache cannot be written.
    """
    folder = target(file)
    if folder.is_dir():
        return folder
    if (problem := missing(file)) is not None:
        raise UserError(problem)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder.with_name(f"{folder.name}.lock")):
            if not folder.is_dir():
                _make(file, folder)
    except OSError as error:
        raise UserError(
            f"model.path: cannot keep the converted {file.name} in {folder.parent}: {error}; set "
            f"XDG_CACHE_HOME to a folder with room"
        ) from error
    return folder


def _make(file: Path, folder: Path) -> None:
    """Convert into a temporary folder, which is renamed when it is whole."""
    _log.warning("converting %s to %s, once: later runs find it there", file.name, folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    model, tokenizer = _read(file)
    try:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
        for written in part.iterdir():
            with written.open("rb") as content:
                os.fsync(content.fileno())
        move(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _read(file: Path) -> tuple["transformers.PreTrainedModel", "transformers.PreTrainedTokenizerBase"]:
    # Newer versions could leave the weights packed, which can neither be saved nor trained on.
    packed = getattr(transformers, "GgufConfig", None)
    plain = {} if packed is None else {"quantization_config": packed(dequantize=True)}
    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True, **plain
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"model.path: {file} cannot be read as a language model: {reason}") from error
    model, told = loaded
    absent = sorted(told["missing_keys"])
    if absent:  # they would be random numbers
        raise UserError(
            f"model.path: {file} lacks {', '.join(absent[:5])}; expected a whole model in one file"
        )
    # The marks of a quantised model, with which it cannot be saved.
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    return model, tokenizer


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Within it no other process of this machine is; the lock goes with the process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@lru_cache
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
