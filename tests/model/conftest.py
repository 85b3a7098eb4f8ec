"""The adapters under test are those of the clients that training is tested with."""

from tests.training.conftest import captured, make_trainer, one_thread, people

__all__ = ["captured", "make_trainer", "one_thread", "people"]
