"""``random:vit``: a tiny image model with random weights, for where none can be had."""

import os
import shutil
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

SCHEME = "random:"
_SIDE = 64  # pixels
_SHAPE: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "image_size": _SIDE,
    "patch_size": 8,
    "hidden_dropout_prob": 0.0,
}


def is_untrained(path: str) -> bool:
    """Whether a model's path names one that was never trained."""
    return path.startswith(SCHEME)


def misnamed(path: str) -> str | None:
    """What is wrong with a path of one, in words; None: nothing."""
    return None if path == f"{SCHEME}vit" else f"model.path: '{path}': there is random:vit alone"


def made(path: str) -> Path:
    """The folder with the model, in Hugging Face layout; written at the first call, the same everywhere.

    Raises:
        UserError: If there is none of that name, or the cache cannot be written.
    """
    if (wrong := misnamed(path)) is not None:
        raise UserError(wrong)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "fedpl" / "models" / "random-vit-1"
    if folder.is_dir():
        return folder
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write(part)
        if not folder.is_dir():  # another process may have been faster
            move(part, folder)
    except OSError as error:
        if folder.is_dir():
            return folder
        raise UserError(
            f"model.path: cannot keep {path} in {folder.parent}: {error}; set XDG_CACHE_HOME to a "
            f"folder with room"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _write(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.ViTModel(transformers.ViTConfig(**_SHAPE), add_pooling_layer=False)
    model.save_pretrained(folder)
    size = {"height": _SIDE, "width": _SIDE}
    transformers.ViTImageProcessorPil(size=size).save_pretrained(folder)
