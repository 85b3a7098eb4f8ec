"""Fixtures of a W&B server, for sweeps by its agent."""

from tests.tracking.conftest import server, stranger

__all__ = ["server", "stranger"]
