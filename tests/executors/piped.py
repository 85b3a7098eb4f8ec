"""An executor whose sites live in another process, for tests: its messages are bytes in a pipe."""

import io
import multiprocessing
import pickle
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor

from fedpl.config import Config
from fedpl.executors.protocol import GoOn
from fedpl.records.messages import Answer, Census, Company, Notice, Report, Work
from fedpl.records.scores import Scores


class Piped:
    """The way to sites in a process of their own.

    Args:
        config: What the sites need: their data, model and settings.

    Attributes:
        heard: All bytes that came from the sites.
    """

    def __init__(self, config: Config) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, config), daemon=True)
        self._process.start()
        other.close()
        self.heard = io.BytesIO()
        self._census: Census | None = None

    def close(self) -> None:
        self._pipe.close()
        self._process.join(timeout=60)
        assert self._process.exitcode == 0

    def join(self) -> Census:
        self._census = self._census or self._ask("join")
        return self._census

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        return self._ask("plan", work, capacity)

    def train(
        self,
        work: Sequence[Work],
        company: Company,
        into: Mapping[str, Tensor] | None = None,
        go_on: GoOn | None = None,
    ) -> Iterator[Answer]:
        self._say("train", work, company)
        while (answer := self._hear()) is not None:
            if isinstance(answer, Report) and into is not None:
                answer = answer._replace(vector=into[answer.client].copy_(answer.vector))
            yield answer

    def score(self, clients: Sequence[str], models: Tensor, split: str) -> Mapping[str, Scores]:
        return self._ask("score", clients, models, split)

    def tell(self, notice: Notice) -> None:
        self._ask("tell", notice)

    def _ask(self, verb: str, *arguments: Any) -> Any:
        self._say(verb, *arguments)
        return self._hear()

    def _say(self, *message: Any) -> None:
        self._pipe.send_bytes(pickle.dumps(message))

    def _hear(self) -> Any:
        content = self._pipe.recv_bytes()
        self.heard.write(content)
        return pickle.loads(content)


def _serve(pipe: Connection, config: Config) -> None:
    """The sites' process: answers until the pipe is closed."""
    from fedpl.runs.prepared import prepare

    torch.set_num_threads(1)
    executor = prepare(config).executor
    while True:
        try:
            verb, *arguments = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        if verb == "train":
            for answer in executor.train(*arguments):
                pipe.send_bytes(pickle.dumps(answer))
            pipe.send_bytes(pickle.dumps(None))
        else:
            pipe.send_bytes(pickle.dumps(getattr(executor, verb)(*arguments)))
