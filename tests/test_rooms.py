"""Rooms stand in an order: for every import a → b inside fedpl, b's room stands below a's, or is the same."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the ground up; rooms of one line do not know each other.
FLOORS = (
    ("errors", "randomness", "deferred", "versions"),
    ("files", "settings"),
    ("mapped",),
    ("records",),
    ("conditions",),
    ("sampling", "data"),
    ("model", "objectives"),
    ("tasks",),
    ("training",),
    ("server",),
    ("interop",),
    ("method",),
    ("presets",),
    ("site",),
    ("executors",),
    ("tracking.settings",),
    ("rounds",),
    ("config", "signpost", "terminal"),
    ("runs.resume",),
    ("runs.earlier",),
    ("problems", "completion", "endings", "suggestions"),
    ("pictures",),
    ("tracking",),
    ("runs",),
    ("page", "replay.recording"),
    ("onboard",),
    ("opened", "cli"),
    ("api",),
    ("fit", "report", "compare", "predict", "export", "onboard.__main__", "site.__main__", "flower"),
    ("replay",),
    ("sweep",),
    ("__main__",),
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# Imports against the direction, each with its reason. The list may only become shorter.
KNOWN = {
    ("fedpl.records.messages", "fedpl.objectives"),  # a value that travels; for annotations only
}


def modules() -> dict[str, Path]:
    """Every module of the package, by name."""
    found = {}
    for path in sorted((ROOT / "fedpl").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path], depth: int | None = None) -> Iterator[str]:
    """The package's modules that a file imports, at any depth, or in its outermost statements alone.

    At any depth that includes modules that are only named, to be imported at their first use.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if depth is None else tree.body:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (name for name in (node.value,) if name in known and name != "fedpl")
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module in known:
            for alias in node.names:
                own = f"{node.module}.{alias.name}"
                yield own if own in known else node.module


def room(module: str) -> str:
    name = module.removeprefix("fedpl.")
    return name if name in FLOOR else name.split(".")[0]


def against() -> set[tuple[str, str]]:
    """Imports that climb."""
    known = modules()
    found = set()
    for name, path in known.items():
        if name == "fedpl":
            continue
        for other in imports(path, known):
            if other != "fedpl" and room(name) != room(other) and FLOOR[room(other)] >= FLOOR[room(name)]:
                found.add((name, other))
    return found


def test_every_module_has_a_room() -> None:
    assert not {name for name in modules() if name != "fedpl" and room(name) not in FLOOR}


def test_imports_go_down() -> None:
    assert against() - KNOWN == set()


def test_no_known_exception_is_stale() -> None:
    assert against() >= KNOWN


# Circles by annotation alone, each with its reason.
ANNOTATED = {
    ("fedpl.server.cutting", "fedpl.server.aggregator"),  # the rule whose step it is
    ("fedpl.server.looking", "fedpl.server.aggregator"),
    ("fedpl.server.moving", "fedpl.server.aggregator"),
    ("fedpl.server.panels", "fedpl.server.aggregator"),
    ("fedpl.server.step", "fedpl.server.aggregator"),
    ("fedpl.server.storage", "fedpl.server.aggregator"),
}


def test_no_circles() -> None:
    """Neither when files are imported, nor later, nor for annotations."""
    known = modules()
    edges = {name: set(imports(path, known)) - {name} for name, path in known.items() if name != "fedpl"}
    for name, other in ANNOTATED:
        edges[name].remove(other)
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join((*way, name))
        if name not in done:
            for other in edges.get(name, ()):
                visit(other, (*way, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_no_import_hides_in_a_function() -> None:
    """What is heavy is deferred at the top of its file, where a reader looks for what a file needs."""
    hidden = [
        f"{name}:{node.lineno}"
        for name, path in modules().items()
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert hidden == []
