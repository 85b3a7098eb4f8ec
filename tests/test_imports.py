"""Who may import whom: fit → rounds → (clients, server, kernels, interop) → tracking."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imported(path: Path) -> Iterator[str]:
    """First names of everything a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("kernels", {"torch", "transformers", "peft", "lightning", "fedpl"}),
        ("fedpl/server", {"torch", "transformers", "peft", "lightning"}),
        *((f"fedpl/{room}", {"jax", "jaxlib", "fedpl_kernels"}) for room in ("model", "training", "site")),
        ("fedpl/data", {"jax", "jaxlib", "fedpl_kernels", "torch"}),
    ],
)
def test_forbidden_imports(folder: str, forbidden: set[str]) -> None:
    assert files(folder)
    for path in files(folder):
        assert not forbidden & set(imported(path)), path


def test_only_interop_imports_torch_and_jax() -> None:
    both = [
        path.relative_to(ROOT).as_posix()
        for path in files("fedpl")
        if path.name != "interop.py" and {"torch", "jax"} <= set(imported(path))
    ]
    assert both == []
