"""The methods that ship, from their files."""

from fedpl.presets import about, names


def table() -> str:
    """A line for each: its name and the first sentence of its file."""
    rows = [f"| [`{name}`](/configs/method/{name}.yaml) | {_cell(about(name))} |" for name in names("method")]
    return "\n".join(["| preset | method |", "|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("_", r"\_").replace("*", r"\*")
