"""Methods by name: the YAML files under ``configs/method``, or a file of the user's."""

from difflib import get_close_matches
from pathlib import Path

from fedpl.errors import UserError

_SHIPPED = Path("configs") / "method"


def method_file(name: str) -> Path:
    """The file of a method.

    Args:
        name: The name of a file under ``configs/method`` (here, or beside the package), or a path to a YAML
            file.

    Raises:
        UserError: If there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UserError(f"--methods: no such file: {name}")
        return Path(name)
    folders = (_SHIPPED, Path(__file__).parents[2] / _SHIPPED)
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise UserError(f"--methods: there is no method '{name}' among {', '.join(known)}{hint}")


def with_method(argv: list[str], file: Path) -> list[str]:
    """A command line with a method's file behind its other ``--config`` files, so that it wins over them."""
    end = 0
    for place, word in enumerate(argv):
        if word == "--config":
            end = place + 2
        elif word.startswith("--config="):
            end = place + 1
    return [*argv[:end], f"--config={file}", *argv[end:]]
