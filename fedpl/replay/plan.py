"""Which server rules a replay tries."""

from pathlib import Path

from fedpl.compare.methods import method_file, with_method
from fedpl.replay.recording import Recording, check_same_training, configuration
from fedpl.server import Aggregator


def rules(recording: Recording, methods: str | None, overrides: list[str]) -> dict[str, Aggregator]:
    """The rules by name: one per method, else the recorded one with other settings.

    Args:
        recording: What is replayed.
        methods: Names or files of methods, separated by commas.
        overrides: Settings ``aggregator.*``, on top of each.

    Raises:
        UserError: If a method is unknown, or a setting wrong or not the server's.
    """
    if methods is None:
        config = configuration(recording.folder, overrides)
        check_same_training(recording, config)
        return {"as given" if overrides else config.method: config.aggregator}
    found = {}
    for name in methods.split(","):
        file = method_file(name)
        config = configuration(recording.folder, [*with_method(overrides, file), f"--method={file.stem}"])
        check_same_training(recording, config)
        found[file.stem] = config.aggregator
    return found


def rule_of(recording: Recording, arguments: list[str]) -> Aggregator:
    """The rule of a trial's arguments, which begin with the recorded configuration.

    Args:
        recording: What is replayed.
        arguments: Arguments for fedpl.fit.

    Raises:
        UserError: If a setting is wrong or not the server's.
    """
    config = configuration(Path(recording.folder), arguments)
    check_same_training(recording, config)
    return config.aggregator
