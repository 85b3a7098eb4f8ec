"""The door of a resident site: bytes in, bytes out, on this machine alone. Imports neither torch nor JAX.

A Unix socket in the site's own folder, which only its user can enter; both ends have to know the key that
lies in it. Who knocks is a short-lived process, what answers has its model in memory.
"""

import logging
import os
import secrets
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from threading import Lock, Thread

from fedpl.errors import UserError

_log = logging.getLogger(__name__)
_LONGEST = 100  # bytes of a socket's address, which systems take


def secret_of(path: Path) -> bytes:
    """A secret in a file that only its user can read; made at first use."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        found = path.read_bytes()
        if len(found) < 32:
            raise UserError(f"{path} holds no secret of 32 bytes; put it back as it was") from None
        return found
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    return path.read_bytes()


class Door:
    """Where one process answers others on its machine, one at a time.

    Args:
        folder: The site's; nobody else is at its door.
        answer: What to answer to a message.

    Raises:
        UserError: If no socket can be made there.
    """

    def __init__(self, folder: Path, answer: Callable[[bytes], bytes]) -> None:
        address = _address(folder)
        self._answer = answer
        self._one = Lock()
        self._open = True
        address.unlink(missing_ok=True)  # of a process that was killed
        self._listener = Listener(str(address), "AF_UNIX", authkey=secret_of(folder / "door.key"))
        address.chmod(0o600)

    def serve(self) -> None:
        """Answer until the door is closed; who does not know the key is sent away."""
        while self._open:
            try:
                caller = self._listener.accept()
            except (AuthenticationError, EOFError, OSError) as error:
                if not self._open:
                    return
                _log.warning("somebody was sent away from the door: %s", error)
                continue
            Thread(target=self._hear, args=(caller,), daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        self._open = False
        self._listener.close()

    def _hear(self, caller: Connection) -> None:
        with caller:
            try:
                message = caller.recv_bytes()
                with self._one:
                    answer = self._answer(message)
                caller.send_bytes(answer)
            except (EOFError, OSError) as error:
                _log.warning("who had knocked did not wait for the answer: %s", error or type(error).__name__)


def knock(folder: Path, message: bytes) -> bytes:
    """What the site in a folder answers.

    Raises:
        ConnectionError: If nobody answers, or the answer is cut off.
    """
    try:
        key = (folder / "door.key").read_bytes()
        with Client(str(_address(folder)), "AF_UNIX", authkey=key) as door:
            door.send_bytes(message)
            return door.recv_bytes()
    except (AuthenticationError, EOFError, OSError) as error:
        why = error or type(error).__name__
        raise ConnectionError(
            f"no site answers at {folder} ({why}); is python -m fedpl.site there?"
        ) from error


def _address(folder: Path) -> Path:
    address = folder.resolve() / "door"
    if len(os.fsencode(address)) > _LONGEST:
        raise UserError(
            f"{address} is too long for a socket ({_LONGEST} bytes); give the site a shorter folder"
        )
    return address
