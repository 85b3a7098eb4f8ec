"""What MkDocs does beside making pages: files of the repository that pages link to are put beside them."""

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
_BESIDE = ("benchmarks/results/**/*.*", "configs/**/*.yaml", "CONTRIBUTING.md", "CHANGELOG.md")
_LINK = re.compile(r"(\]\()(\.\./[^)#]+)")
_SPREAD = re.compile(r"(?<=\d) ± (?=\d)")
# What a browser fetches by itself, in contrast to what a reader follows.
_FETCHED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//|<link[^>]*\bhref="(?:https?:)?//'
)


def on_files(files: Any, config: Any) -> Any:
    """Results, configurations and the like, at their paths from the repository's root."""
    for pattern in _BESIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/, as they are right in the repository, to where the site has these files."""
    folder = PurePosixPath(page.file.src_uri).parent
    deep = len(folder.parts)

    def moved(link: re.Match[str]) -> str:
        target = normpath(f"{folder}/{link[2]}")
        outside = target.startswith("../")
        return f"{link[1]}{'../' * deep}{target.removeprefix('../')}" if outside else link[0]

    # A number stays with its deviation, however narrow its column is.
    markdown = _SPREAD.sub("\u00a0±\u00a0", markdown)
    inside = (ROOT / "docs" / page.file.src_uri).is_file()
    return _LINK.sub(moved, markdown) if inside else markdown.replace("](docs/", "](")


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Nothing is fetched from elsewhere."""
    found = _FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri}: fetched from elsewhere: {found[0]}...")
    return output
