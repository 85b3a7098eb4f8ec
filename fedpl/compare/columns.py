"""The columns that a comparison's table can have."""

from collections.abc import Sequence

from fedpl.records.scores import Metric

# After the primary metric; the rest is to be asked for, as a terminal is 80 columns wide.
DEFAULT = ("gain", "worst", "decile", "harmed", "MB", "s")
EXTRA = ("interval", "rank")


def known(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """All names, of the scores of a task and of what is made of them."""
    return (*(metric.name for metric in metrics), *DEFAULT, *EXTRA)
