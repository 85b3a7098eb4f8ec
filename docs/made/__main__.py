"""``python -m docs.made``: make those regions anew, in README.md and below docs/; a test holds them to it.

A region stands between ``<!-- made: NAME WORD ... -->`` and ``<!-- made -->``.
"""

import re
from collections.abc import Callable
from pathlib import Path

from docs.made import data, methods, results, scale, settings, speed

ROOT = Path(__file__).parents[2]
# Functions of a region's words; links in what they return begin at the repository's root: "(/configs".
MAKERS: dict[str, Callable[..., str]] = {
    "settings": settings.tables,
    "methods": methods.table,
    **{name: getattr(results, name) for name in results.__all__},
    **{name: getattr(part, name) for part in (speed, scale, data) for name in part.__all__},
}
_REGION = re.compile(r"(<!-- made: ([^>]+) -->\n).*?(<!-- made -->)", re.DOTALL)


def pages() -> list[Path]:
    """README and everything that the site is built of."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def remade(page: Path) -> str:
    """A page's text with its regions as they are to be now."""
    up = "../" * (len(page.relative_to(ROOT).parts) - 1)

    def make(region: re.Match[str]) -> str:
        name, *words = region[2].split()
        text = MAKERS[name](*words).replace("](/", f"]({up}")
        return f"{region[1]}\n{text}\n\n{region[3]}"

    return _REGION.sub(make, page.read_text(encoding="utf-8"))


def main() -> None:
    """Write what has changed and name it."""
    for page in pages():
        text = remade(page)
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
