"""Where a worker answers orders, whatever way they come."""

import logging
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.executors.crew import Done, Order, Raised
from fedpl.executors.crossing import arrays, tensors
from fedpl.records.messages import Failure

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")  # of sites


class Said(NamedTuple):
    """A reply, and what was logged on the way to it.

    Attributes:
        reply: What came of an order.
        logged: Level, logger and message of each warning.
    """

    reply: Done | Raised
    logged: tuple[tuple[int, str, str], ...]

    def heard(self, worker: int) -> Done | Raised:
        """The reply; warnings are logged where it is heard, with the worker's number."""
        for level, name, message in self.logged:
            logging.getLogger(name).log(level, "worker %d: %s", worker, message)
        return self.reply


class Desk:
    """Serves what it makes, by its methods.

    Args:
        make: Makes what is served.
        threads: How many it takes on a CPU.
    """

    def __init__(self, make: Callable[[], Any], threads: int = 1) -> None:
        self._begin(threads)
        self._served: Any = None
        self._heard = _Heard(logging.WARNING)
        logging.getLogger().addHandler(self._heard)
        self.made = self._said(lambda: self._serve(make))

    def answer(self, order: Order) -> Said:
        """Do what an order says."""
        return self._said(lambda: self._do(order))

    def _begin(self, threads: int) -> None:
        """Before anything is made."""

    def _serve(self, make: Callable[[], Any]) -> None:
        self._served = make()

    def _do(self, order: Order) -> Any:
        found = getattr(self._served, order.verb)
        return found(*order.arguments) if callable(found) else found

    def _said(self, work: Callable[[], Any]) -> Said:
        try:
            reply: Done | Raised = Done(work())
        except Exception as error:
            reply = Raised(_portable(error))
        logged = tuple(self._heard.records)
        self._heard.records.clear()
        return Said(reply, logged)


class SiteDesk(Desk):
    """Serves an executor: its tensors are arrays on the way; see `fedpl.executors.protocol.Executor`."""

    def _begin(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def _do(self, order: Order) -> Any:
        value = super()._do(Order(order.verb, tensors(order.arguments)))
        if order.verb == "train":
            value = [
                answer._replace(error=answer.error and _portable(answer.error))
                if isinstance(answer, Failure)
                else answer
                for answer in value
            ]
        return arrays(value)


class _Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[tuple[int, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelno, record.name, record.getMessage()))


def _portable(error: BaseException) -> BaseException:
    """An error that can be sent: not every exception can be made again from its pickled form."""
    if isinstance(error, UserError):
        return UserError(*error.args)
    plain = RuntimeError(f"{type(error).__name__}: {error}")
    plain.add_note("in a worker:\n" + "".join(traceback.format_exception(error)).rstrip())
    return plain
