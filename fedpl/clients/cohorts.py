"""Trains and scores many clients at once; what `ClientTrainer` does for one."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fedpl.clients.cohort import fit_cohort
from fedpl.clients.duo import Models, rows_of
from fedpl.clients.engine import Engine
from fedpl.clients.packing import Learner, Limits, Pass, Row, pack
from fedpl.clients.phases import Phase
from fedpl.clients.planner import Work, cohort_size, free_memory, group, pass_limits, return_memory
from fedpl.clients.scoring import stacked_answers
from fedpl.clients.session import Fit, Session
from fedpl.clients.trainer import ClientTrainer
from fedpl.config import ClientConfig
from fedpl.errors import UserError
from fedpl.objectives import Objective
from fedpl.scores import Scores, score

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Assignment(NamedTuple):
    """One client's work in a round.

    Attributes:
        client: Client id.
        received: The client's aggregate θ̄ᵢ.
    """

    client: str
    received: Float[Tensor, "params"]


class CohortTrainer:
    """Stacked training and scoring on the frozen model of a `ClientTrainer`.

    Args:
        trainer: Model, tokens, configuration; its own model stays the plain PEFT one.

    Raises:
        UserError: If the adapter cannot be stacked.

    Attributes:
        size: Most clients of a cohort; halved when memory runs out.
        limits: Largest pass through the model; halved likewise.
    """

    def __init__(self, trainer: ClientTrainer) -> None:
        self.trainer = trainer
        self.config = trainer.config.client
        self.device = trainer.hardware.device
        self.engine = Engine(trainer.model, trainer.layout, self.config)
        free = free_memory(self.device)
        copies = self.config.objective.copies
        self.size = cohort_size(self.config.cohort_size, self.device, trainer.layout.size, free, copies)
        per_token = self._bytes_per_token() if self.config.tokens_per_pass == "auto" else 0
        self.limits = pass_limits(self.config.tokens_per_pass, self.device, per_token, free)

    def groups(self, clients: Sequence[str], round: int) -> list[list[int]]:
        """Places of the clients that make a cohort each; `fit` of one of them makes one cohort again.

        Args:
            clients: Whom.
            round: Number of the round, from 1.
        """
        tokens = self.trainer.tokens
        effort = [
            Work(len(self.trainer.order(client, round)), sum(map(len, tokens[client, "train"].ids)))
            for client in clients
        ]
        return group(effort, self.size)

    def capacity(self) -> dict[str, int]:
        """What was chosen by the memory that was free, and halved when it ran out."""
        return {"size": self.size, "tokens": self.limits.tokens}

    def set_capacity(self, capacity: dict[str, int]) -> None:
        """Use what had been chosen before."""
        self.size = capacity["size"]
        self.limits = self.limits._replace(tokens=capacity["tokens"])

    def fit(
        self, work: Sequence[Assignment], round: int, objective: Objective | None = None
    ) -> Iterator[tuple[list[int], Float[Tensor, "clients params"], list[Fit]]]:
        """Fine-tune clients, cohort by cohort.

        Args:
            work: Whom, from where.
            round: Number of the round, from 1.
            objective: What to minimise; None: client.objective.

        Yields:
            Places of a cohort's clients in `work`, their tuned θᵢ and what their training reports.
        """
        waiting = self.groups([client for client, _ in work], round)
        while waiting:
            members, *waiting = waiting
            if len(members) > self.size:
                half = -(-len(members) // 2)
                waiting = [members[:half], members[half:], *waiting]
                continue
            clients, received = zip(*(work[i] for i in members), strict=True)
            session = Session(self.trainer, self._fit, clients, received, round)
            chosen = objective or self.config.objective
            outcome = self._unless_out_of_memory(partial(chosen, session), len(members))
            if outcome is None:
                waiting = [members, *waiting]  # nothing of it has left the cohort: from the start, in halves
                continue
            return_memory(self.device)
            yield members, outcome.theta, session.close(outcome)
            del session, outcome  # as large as the cohort, while the next one trains

    def score(self, clients: Sequence[str], models: Models, split: str) -> list[Scores]:
        """Quality of one model per client on a split of the client's own data.

        Args:
            clients: Whose data.
            models: Their adapters, or pairs of adapters.
            split: train, validation or test.
        """
        scores: list[Scores] = []
        while len(scores) < len(clients):
            part = slice(len(scores), len(scores) + self.size)
            found = self._unless_out_of_memory(
                partial(self._score, clients[part], rows_of(models, part), split), len(clients[part])
            )
            scores += found or []
        return scores

    def losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        """Mean loss of each of several adapters on each client's training data, without dropout.

        Args:
            clients: Whose data.
            vectors: The adapters.
        """
        found: list[Float[Tensor, "clients models"]] = []
        while (done := sum(map(len, found))) < len(clients):
            part = clients[done : done + self.size]
            losses = self._unless_out_of_memory(partial(self._losses, part, vectors), len(part))
            found += [] if losses is None else [losses]
        return torch.cat(found)

    def _fit(
        self,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
        phase: Phase,
    ) -> list[float]:
        """Train rows in place, all together."""
        return fit_cohort(self.engine, theta, learners, config, self.trainer.hardware, self.limits, phase)

    def _score(self, clients: Sequence[str], models: Models, split: str) -> list[Scores]:
        labels: list[list[int]] = [[] for _ in clients]
        answers: list[list[int]] = [[] for _ in clients]
        for part, logits in self._answers(clients, models, split):
            found = logits.argmax(-1).tolist()
            for row, label, answer in zip(part.rows, part.labels.tolist(), found, strict=True):
                labels[row.client].append(label)
                answers[row.client].append(answer)
        return [score(*pair) for pair in zip(labels, answers, strict=True)]

    def _losses(
        self, clients: Sequence[str], vectors: Float[Tensor, "models params"]
    ) -> Float[Tensor, "clients models"]:
        found = torch.zeros(len(clients), len(vectors), device=self.device)
        for model, vector in enumerate(vectors):
            same = vector.expand(len(clients), -1)  # no copies: every client's adapter is this one
            for part, logits in self._answers(clients, same, "train"):
                losses = F.cross_entropy(logits.float(), part.labels, reduction="none")
                found[:, model].index_add_(0, part.client, losses * part.weight)
        return found.cpu()

    def _answers(
        self, clients: Sequence[str], models: Models, split: str
    ) -> Iterator[tuple[Pass, Float[Tensor, "rows classes"]]]:
        return stacked_answers(self.trainer, self.engine, self.limits, clients, models, split)

    def _unless_out_of_memory(self, work: Callable[[], _T], clients: int) -> _T | None:
        """The work's result, or None if memory ran out; then cohorts and passes are halved from here on.

        Raises:
            UserError: If they cannot be halved any more.
        """
        try:
            return work()
        except torch.OutOfMemoryError:
            if clients == 1 and self.limits.tokens == 1:
                raise UserError(
                    "client.cohort_size: one text of one client at a time does not fit in the memory: "
                    "set client.gradient_checkpointing, or lower model.max_length"
                ) from None
        # Outside the handler, whose traceback would keep the activations alive.
        self.engine.stack.bind(torch.zeros(1, self.trainer.layout.size, device=self.device))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.size = max(clients // 2, 1)
        self.limits = self.limits._replace(tokens=max(self.limits.tokens // 2, 1))
        _log.warning(
            "out of memory with %d clients at once: going on with %d, %d tokens a pass",
            clients,
            self.size,
            self.limits.tokens,
        )
        return None

    def _bytes_per_token(self) -> int:
        """Activations that a token leaves for the backward pass, counted on a row of the longest text."""
        key = max(self.trainer.tokens, key=lambda key: max(map(len, self.trainer.tokens[key].ids)))
        tokens = self.trainer.tokens[key]
        longest = max(range(len(tokens)), key=lambda i: len(tokens.ids[i]))
        (part,) = pack([Row(0, tokens, longest)], Limits(1))
        seen: dict[int, int] = {}

        def count(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        frozen = {p.untyped_storage().data_ptr() for p in self.engine.stack.model.parameters()}
        theta = torch.zeros(1, self.trainer.layout.size, device=self.device)
        self.engine.stack.model.train(self.config.model_dropout)
        self.engine.stack.bind(theta, torch.zeros_like(theta))
        hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
        with hooks, self.trainer.hardware.autocast():
            self.engine(part.to(self.device), cache=False)
        self.engine.stack.bind(theta)
        return sum(size for at, size in seen.items() if at not in frozen) // part.input_ids.shape[1]
