"""How a command ends: a mistake in one line, an interruption in one line with the way on."""

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fedpl.errors import UserError


class Ended(BaseException):
    """The process was asked to end (SIGTERM). No `Exception`: nothing on the way takes it for an error."""


def fail(message: str) -> NoReturn:
    """Print one line and leave with the exit code of a wrong call."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)  # no bare SystemExit: W&B learns the code of a run that is open through sys.exit alone


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run an entry point: a mistake ends in one line, an interruption in one line with the way on."""
    signal.signal(signal.SIGTERM, _end)
    try:
        code = main()
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:
        if not _stopped_reading():
            raise
        code = 141  # as if SIGPIPE had ended it
    except KeyboardInterrupt as interrupt:
        _say_interrupted("interrupted", interrupt)
        code = 130
    except Ended as ended:
        _say_interrupted("ended by SIGTERM", ended)
        code = 143
    sys.exit(code)


@contextmanager
def going_on(out: Path) -> Iterator[None]:
    """Within it an interruption says how all goes on, not how one of the runs under `out` would."""
    try:
        yield
    except BaseException as cause:
        if not isinstance(cause, Exception):
            cause.__notes__ = [f"go on with the same command and --out {out}"]
        raise


def _stopped_reading() -> bool:
    """Whether who reads standard output (``| head``) has gone; then nothing more is written there."""
    watched = select.poll()
    watched.register(1, 0)
    gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return gone


def _end(number: int, frame: object) -> NoReturn:
    raise Ended


def _say_interrupted(what: str, cause: BaseException) -> None:
    print("; ".join([what, *getattr(cause, "__notes__", [])]), file=sys.stderr)
