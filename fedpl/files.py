"""Files that are either whole or absent."""

import json
import os
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name, force it to disk, then rename into place."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any parser reads: no NaN or infinity."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
