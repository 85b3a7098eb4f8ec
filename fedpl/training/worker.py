"""Local training and scoring of a site's clients, whichever backend does the work."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.objectives import Objective
from fedpl.objectives.models import Models, rows_of
from fedpl.records.scores import Scores
from fedpl.training.backend import Backend, Effort
from fedpl.training.halves import halves
from fedpl.training.prompts import SPLITS, Prompts
from fedpl.training.segments import add_by_client
from fedpl.training.session import Assignment, Fit, LocalSession

_T = TypeVar("_T")


class Worker:
    """Trains and scores clients.

    Args:
        backend: Who does the work.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.partitions = backend.partitions

    def groups(self, clients: Sequence[str], round: int) -> list[list[str]]:
        """Clients that make a cohort each; `fit` of one of them makes one cohort again.

        Args:
            clients: Whom.
            round: Number of the round, from 1.
        """
        return [[clients[place] for place in members] for members in self._places(clients, round)]

    def fit(
        self, work: Sequence[Assignment], round: int, objective: Objective
    ) -> Iterator[tuple[list[int], Float[Tensor, "clients params"], list[Fit]]]:
        """Fine-tune clients, cohort by cohort.

        Args:
            work: Whom, from where.
            round: Number of the round, from 1.
            objective: What to minimise.

        Yields:
            Places of a cohort's clients in `work`, their tuned θᵢ and what their training reports.

        Raises:
            UserError: If one client alone does not fit in memory.
        """
        waiting = self._places([each.client for each in work], round)
        while waiting:
            members, *waiting = waiting
            if len(members) > self.backend.size:
                half = -(-len(members) // 2)
                waiting = [members[:half], members[half:], *waiting]
                continue
            train = partial(self._trained, [work[i] for i in members], round, objective)
            found = self._unless_out_of_memory(train, len(members))
            if found is None:
                waiting = [members, *waiting]  # nothing of it has left the cohort: from the start, in parts
                continue
            self.backend.rest()
            theta, fits = found
            yield members, theta, fits
            del found, theta, fits  # as large as the cohort, while the next one trains

    def score(self, clients: Sequence[str], models: Models, split: str) -> list[Scores]:
        """Quality of one model per client on a split of the client's own data.

        Args:
            clients: Whose data.
            models: Their adapters, or pairs of adapters.
            split: train, validation or test.
        """
        scores: list[Scores] = []
        for part in self._parts(len(clients), scores):
            found = self._unless_out_of_memory(
                partial(self._score, clients[part], rows_of(models, part), split), len(clients[part])
            )
            scores += found or []
        return scores

    def goods(
        self, clients: Sequence[str], models: Float[Tensor, "clients params"], split: str
    ) -> list[Float[np.ndarray, "examples"]]:
        """How good the answer to each example is, the more the better, without decoding.

        Args:
            clients: Whose data.
            models: Their adapters.
            split: validation or test.
        """
        found: list[Float[np.ndarray, "examples"]] = []
        for part in self._parts(len(clients), found):
            work = partial(self._answered, clients[part], models[part], split)
            pairs = self._unless_out_of_memory(work, len(clients[part])) or []
            found += [np.array(self.partitions.task.goods(*pair)) for pair in pairs]
        return found

    def written(self, clients: Sequence[str], models: Models, split: str) -> list[list[str]]:
        """What one model per client answers in words to the prompts of a split; empty where nothing is asked.

        Args:
            clients: Whose prompts.
            models: Their adapters.
            split: validation or test.
        """
        answers: list[list[str]] = []
        asked = self.partitions.prompts
        if asked is None:
            return answers
        for part in self._parts(len(clients), answers):
            work = partial(self._written, asked, clients[part], rows_of(models, part), split)
            answers += self._unless_out_of_memory(work, len(clients[part])) or []
        return answers

    def losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        """Mean loss of each of several adapters on each client's training data, without dropout.

        Args:
            clients: Whose data.
            vectors: The adapters.
        """
        rows: list[Float[Tensor, "models"]] = []
        for part in self._parts(len(clients), rows):
            losses = self._unless_out_of_memory(
                partial(self._losses, clients[part], vectors), len(clients[part])
            )
            rows += [] if losses is None else list(losses)
        return torch.stack(rows)

    def _trained(
        self, clients: Sequence[Assignment], round: int, objective: Objective
    ) -> tuple[Float[Tensor, "clients params"], list[Fit]]:
        """A cohort's θᵢ, and what its clients report."""
        told = halves(self.backend, clients, round, objective)
        session = LocalSession(self.backend, clients, round)
        outcome = objective(session)
        return outcome.theta, session.close(outcome, told)

    def _places(self, clients: Sequence[str], round: int) -> list[list[int]]:
        efforts = [
            Effort(
                len(self.partitions.order(client, round)),
                sum(self.partitions.examples[client, "train"].lengths),
            )
            for client in clients
        ]
        return self.backend.groups(efforts)

    def _parts(self, number: int, done: list[Any]) -> Iterator[slice]:
        """What is next, as long as not all is done, no more at once than fits."""
        while len(done) < number:
            yield slice(len(done), len(done) + self.backend.size)

    def _score(self, clients: Sequence[str], models: Models, split: str) -> list[Scores]:
        task = self.partitions.task
        scores = [task.score(*pair) for pair in self._answered(clients, models, split)]
        asked = self.partitions.prompts
        if asked is None or split not in SPLITS:
            return scores
        written = self._written(asked, clients, models, split)
        right = (asked.questions[client, split].references for client in clients)
        return [
            {**task.score_decoded(*pair), **own}
            for pair, own in zip(zip(right, written, strict=True), scores, strict=True)
        ]

    def _answered(
        self, clients: Sequence[str], models: Models, split: str
    ) -> list[tuple[list[Any], list[Any]]]:
        """Targets and answers of each client."""
        task = self.partitions.task
        found: list[tuple[list[Any], list[Any]]] = [([], []) for _ in clients]
        for part in self.backend.answers(clients, models, split):
            rows = zip(part.client.tolist(), part.targets.tolist(), task.answers(part.outputs), strict=True)
            for client, target, answer in rows:
                found[client][0].append(target)
                found[client][1].append(answer)
        return found

    def _written(self, asked: Prompts, clients: Sequence[str], models: Models, split: str) -> list[list[str]]:
        known = [asked.known(client, split, rows_of(models, place)) for place, client in enumerate(clients)]
        new = [place for place, answers in enumerate(known) if answers is None]
        if new:
            whose = [clients[place] for place in new]
            ids = [asked.questions[client, split].ids for client in whose]
            streams = [asked.streams(self.partitions.seed, client, split) for client in whose]
            written = self.backend.write(whose, rows_of(models, new), ids, streams)
            for place, answers in zip(new, written, strict=True):
                known[place] = [asked.ends.text(answer) for answer in answers]
                asked.keep(clients[place], split, rows_of(models, place), known[place] or [])
        return [answers or [] for answers in known]

    def _losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        found = torch.zeros(len(clients), len(vectors), device=self.backend.foundation.hardware.device)
        for model, vector in enumerate(vectors):
            same = vector.expand(len(clients), -1)  # no copies: every client's adapter is this one
            for part in self.backend.answers(clients, same, "train"):
                losses = self.partitions.task.losses(part.outputs, part.targets)
                add_by_client(found[:, model], part.client, losses * part.weight)
        return found.cpu()

    def _unless_out_of_memory(self, work: Callable[[], _T], clients: int) -> _T | None:
        """The work's result, or None if memory ran out; then less is done at once from here on.

        Raises:
            UserError: If less cannot be done.
        """
        try:
            return work()
        except torch.OutOfMemoryError:
            pass  # its traceback keeps the activations alive: what is next is outside the handler
        self.backend.shrink(clients)
        return None
