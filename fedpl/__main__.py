"""``fedpl COMMAND``: the same as ``python -m fedpl.COMMAND``."""
# PYTHON_ARGCOMPLETE_OK

import sys
from importlib import import_module

from fedpl import __version__
from fedpl.completion import asked, command
from fedpl.endings import run_main
from fedpl.errors import UserError

COMMANDS = {
    "fit": "fine-tune one foundation model for many clients",
    "compare": "several methods over several seeds, as a table",
    "replay": "recorded task vectors under other server settings, without training",
    "site": "hold the clients of one organisation ready for a server elsewhere",
    "onboard": "adapters for newcomers of a finished run",
    "sweep": "search settings by a W&B sweep file, without a server",
    "predict": "what clients' models answer to the texts of a table",
    "export": "a client's adapter or whole model in a folder, or the clients as CSV",
    "report": "runs' pictures, and one HTML page about them",
}


def main() -> None:
    """Hand over to a command."""
    run_main(lambda: _command(sys.argv[1:]))


def _command(argv: list[str]) -> int:
    if asked():
        argv = command(list(COMMANDS))
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help", "--version"):
        lines = [f"  {command:8}  {what}" for command, what in COMMANDS.items()]
        text = "\n".join(["usage: fedpl COMMAND ...", "", *lines, "", "fedpl COMMAND --help says more."])
        print(__version__ if name == "--version" else text)
        return 0
    if name not in COMMANDS:
        raise UserError(f"there is no command '{name}'; there are {', '.join(COMMANDS)}")
    package = name in ("compare", "onboard", "replay", "site", "sweep")
    module = import_module(f"fedpl.{name}.__main__" if package else f"fedpl.{name}")
    code: int = module.main(rest)
    return code


if __name__ == "__main__":
    main()
