"""How letters travel in Flower's messages, and the door of a node: neither torch nor JAX is imported.

Flower starts a process for every message to a node. It only hands the letter on to the resident site, which
has data and model in memory. Needs the extra ``flower`` when a message is made.
"""

from pathlib import Path
from typing import Any

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.executors.door import knock

flwr: Any = deferred("flwr.app")
_RECORD, _LETTER, _ABSENT = "fedpl", "letter", "absent"
_TTL = 12 * 3600.0  # seconds for which SuperLink keeps a message


def message_to(node: int, letter: bytes) -> Any:
    """A message to a node."""
    return flwr.Message(_record(letter), dst_node_id=node, message_type="query", ttl=_TTL)


def content_of(message: Any) -> bytes | str:
    """The letter in a message; or why there is none."""
    if message.has_error():
        return f"its node did not answer ({message.error.reason or message.error.code})"
    try:
        found = message.content[_RECORD]
        if _ABSENT in found:
            return str(found[_ABSENT])
        letter: bytes = found[_LETTER].data
        return letter
    except KeyError:
        return "its node answered something else"


def at_the_door(message: Any, folder: str) -> Any:
    """What a node answers: what its site does.

    Args:
        message: Flower's.
        folder: The site's.
    """
    letter = content_of(message)
    try:
        if isinstance(letter, str):
            raise ConnectionError(letter)
        content = _record(knock(Path(folder), letter))
    except (ConnectionError, UserError) as error:
        content = flwr.RecordDict({_RECORD: flwr.ConfigRecord({_ABSENT: str(error)})})
    return flwr.Message(content, reply_to=message)


def _record(letter: bytes) -> Any:
    """Bytes as Flower carries them: as an array, which it sends in pieces."""
    array = flwr.Array(dtype="uint8", shape=(len(letter),), stype="bytes", data=letter)
    return flwr.RecordDict({_RECORD: flwr.ArrayRecord({_LETTER: array})})
