"""What clients remember between rounds: kept by their site, named by digests, never seen by the server."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedpl.errors import UserError
from fedpl.files import make_folder, quoted, read_tensors, write_tensors, writing

State = Mapping[str, Tensor]
# The round that is open, the last one, and the one before, should the newest checkpoint be damaged.
_KEPT = 3


class Memory:
    """The last states of each client, by digest.

    A piece of work names the state that has to be in force, so repeating it gives the same, whatever was
    remembered in the meantime.

    Args:
        folder: Where they are kept on disk too; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._states: dict[str, dict[str, State]] = {}

    def recall(self, client: str, digest: str) -> State:
        """A state that the client has kept; without a digest, nothing.

        Raises:
            UserError: If it is not there, or not what it was.
        """
        if not digest:
            return {}
        known = self._states.get(client, {}).get(digest)
        return self._read(client, digest) if known is None else known

    def keep(self, client: str, state: State) -> str:
        """Remember a state, on disk before this returns, and give its digest; the oldest are forgotten."""
        found = digest(state)
        if self.folder is None:
            kept = {name: own for name, own in self._states.get(client, {}).items() if name != found}
            self._states[client] = {**dict(list(kept.items())[1 - _KEPT :]), found: state}
            return found
        own = self._own(client)
        path = own / f"{found}.safetensors"
        with writing(own):
            make_folder(own.parent)
            make_folder(own)
            write_tensors(path, _arrays(state), {"client": client})
            for old in sorted(own.glob("*.safetensors"), key=lambda file: file.stat().st_mtime_ns)[:-_KEPT]:
                old.unlink()
        self._states[client] = {found: state}
        return found

    def _read(self, client: str, wanted: str) -> State:
        lost = (
            f"what client '{client}' remembered is gone ({wanted} is not in "
            f"{self.folder or 'this process'}); put its site's folder back, or start a new run"
        )
        if self.folder is None or not (path := self._own(client) / f"{wanted}.safetensors").exists():
            raise UserError(lost)
        tensors, _ = read_tensors(path)
        state = {name: torch.from_numpy(value) for name, value in tensors.items()}
        if digest(state) != wanted:
            raise UserError(lost)
        return state

    def _own(self, client: str) -> Path:
        assert self.folder is not None
        return self.folder / quoted(client)


def digest(state: State) -> str:
    """A name for a state; empty for nothing."""
    if not state:
        return ""
    found = hashlib.blake2b(digest_size=16)
    for name, value in sorted(_arrays(state).items()):
        found.update(json.dumps([name, value.dtype.str, value.shape]).encode())
        found.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _arrays(state: State) -> dict[str, np.ndarray]:
    return {name: value.detach().cpu().numpy() for name, value in state.items()}
