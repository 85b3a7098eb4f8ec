"""The toy federation of the tests of rounds."""

from tests.rounds.conftest import toy

__all__ = ["toy"]
