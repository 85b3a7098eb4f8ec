"""How clients and classes are named to people: what cannot be printed as its code, long lists cut."""

from collections.abc import Iterable

_LISTED = 20


def readable(name: str, most: int = 60) -> str:
    """A name as one short line, whatever is in it: ``\\n`` for a line break, … for what is too long.

    Args:
        name: A client's id, a class.
        most: Characters.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    half = most // 2
    return shown if len(shown) <= most else f"{shown[:half]}…{shown[-(most - half - 1) :]}"


def some(names: Iterable[str], most: int = _LISTED) -> str:
    """Names in quotation marks; of a long list the first, and how many more there are."""
    return listed((f"'{readable(name)}'" for name in names), most)


def listed(items: Iterable[str], most: int = _LISTED) -> str:
    """Items with commas; of a long list the first, and how many more there are."""
    found = list(items)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def counted(number: int, what: str) -> str:
    """A number with a noun, in the plural where it is not one."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
