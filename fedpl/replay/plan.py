"""Which server rules a replay tries."""

from collections.abc import Sequence
from pathlib import Path

from fedpl.cli import make_parser, read
from fedpl.replay.recording import Recording, check_same_training
from fedpl.server import Aggregator


def rules(recording: Recording, methods: str | None, overrides: Sequence[str]) -> dict[str, Aggregator]:
    """The rules by name: one per method, else the recorded one with other settings.

    Args:
        recording: What is replayed.
        methods: Names or files of methods, separated by commas.
        overrides: Settings ``aggregator.*``, on top of each.

    Raises:
        UserError: If a method is unknown, or a setting wrong or not the server's.
    """
    parser = make_parser("python -m fedpl.replay", "")
    found = {}
    for name in [None] if methods is None else methods.split(","):
        config = read(parser, overrides, recording.config, name)
        check_same_training(recording, config)
        label = Path(name).stem if name else "as given" if overrides else config.name
        found[label] = config.aggregator
    return found
