"""``python -m fedpl.fit``: personalised federated fine-tuning."""

import sys
from collections.abc import Sequence

from fedpl.cli import make_parser, parse, run_main


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and check the configuration, then import the heavy parts and run."""
    parser = make_parser("python -m fedpl.fit", "Fine-tune one foundation model for many clients.")
    config, settings = parse(parser, argv)

    from rich.console import Console

    from fedpl.rounds.experiment import run

    settings.pop("config", None)
    settings.run_dir = None  # a saved configuration can be run again as it is
    resolved = parser.dump(settings, skip_unset=False)
    run(config, settings.as_dict(), resolved, Console())
    return 0


if __name__ == "__main__":
    run_main(lambda: main(sys.argv[1:]))
