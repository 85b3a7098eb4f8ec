"""What worker processes of the tests make in place of a site, or around one."""

import os
import signal
import sys
import time
from typing import Any

from fedpl.config import Config
from fedpl.executors.here import Here
from fedpl.runs.sites import here


class Odd:
    """Answers that a site would not give."""

    def sleep(self, seconds: float) -> str:
        time.sleep(seconds)
        return "awake"

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(self) -> None:
        raise TwoArguments("one", "two")

    def double(self, tensors: Any) -> Any:
        return [2 * tensor for tensor in tensors]


class TwoArguments(Exception):
    """Cannot be made again from its pickled form."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


class Watched(Here):
    """A site that tells what its process has imported."""

    def imported(self) -> set[str]:
        return {name.split(".")[0] for name in sys.modules}


def watched(config: Config) -> Watched:
    return Watched(here(config).site)
