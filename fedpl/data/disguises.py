"""Files that are something else than their name says, told by their first bytes."""

from fedpl.data.files import kind_of
from fedpl.errors import UserError

_BINARY = {
    b"\x1f\x8b": ("compressed by gzip", "let its name end in .gz"),
    b"PK\x03\x04": ("a spreadsheet or zip archive", "save or unpack it as CSV"),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", "save it as CSV"),
    b"PAR1\x15": ("a Parquet file", "let its name end in .parquet"),
    b"ARROW1\0": ("an Arrow file", "let its name end in .arrow"),
    b"SQLite format 3\0": ("a database", "write its table as CSV"),
}
_ELSEWHERE = {
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file itself with git lfs pull"),
    b"<!doctype html": ("a web page", "download the file itself"),
    b"<html": ("a web page", "download the file itself"),
}


def refuse_disguised(path: str, head: bytes, encoding: str) -> None:
    """Refuse a file whose content is of another kind.

    Args:
        path: Of the file.
        head: Its first bytes, uncompressed.
        encoding: That it is read in, if it is text.

    Raises:
        UserError: With what it is and what to do.
    """
    text = kind_of(path) in ("csv", "tsv", "json")
    found = [told for mark, told in _BINARY.items() if text and head.startswith(mark)]
    found += [told for mark, told in _ELSEWHERE.items() if head.lstrip().lower().startswith(mark)]
    for what, todo in found:
        raise UserError(f"{path}: is {what}, by its first bytes; {todo}")
    wide = encoding.lower().replace("_", "-").startswith(("utf-16", "utf-32", "utf16", "utf32"))
    if text and not wide and head[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        # Every other byte of Latin text in UTF-16 is nothing; without its mark nothing else tells.
        for name, nothing in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
            if len(nothing) > 1 and nothing.count(0) > len(nothing) / 2:
                raise UserError(
                    f"{path}: line 1 is not written in {encoding}; say in what, for example "
                    f"--data.encoding {name}"
                )
