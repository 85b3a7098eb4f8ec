"""Where clients live: data, memory, frozen model, clipping, noise, and simulated faults."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.conditions import PrivacyConfig
from fedpl.data import FederatedData
from fedpl.errors import UserError
from fedpl.objectives.models import stack_models
from fedpl.records.messages import (
    Begin,
    Census,
    Choose,
    Company,
    Deliver,
    Frozen,
    Notice,
    Report,
    Seconds,
    Work,
)
from fedpl.records.scores import Scores
from fedpl.site.census import census
from fedpl.site.choosing import TUNED, let_choose
from fedpl.site.delivery import deliver, deliver_answers
from fedpl.site.faults import Faults
from fedpl.site.guard import check
from fedpl.site.memory import Memory
from fedpl.site.privacy import privatise
from fedpl.training.session import Assignment, Fit
from fedpl.training.worker import Worker


class Trained(NamedTuple):
    """A client's work when its training is done.

    Attributes:
        work: What was asked for.
        received: What it started from.
        choice: Which of several models that was.
        fit: What its training reports.
        used: The model that it uses after the last round, where that is to be remembered.
    """

    work: Work
    received: Float[Tensor, "params"]
    choice: int | None
    fit: Fit
    used: Tensor | None = None


class Site:
    """Clients that share a process and a frozen model.

    Args:
        data: The clients.
        worker: Trains and scores them.
        privacy: What is done to a task vector before it leaves its client.
        faults: What goes wrong.
        seed: The run's seed.
        settings: Digest of the run's settings, for noise that no other run draws.

    Attributes:
        secret: What the noise is drawn from beside the seed, known to nobody but the site; empty: whoever
            knows the seed knows the noise, as in a simulation.
    """

    def __init__(
        self,
        data: FederatedData,
        worker: Worker,
        privacy: PrivacyConfig,
        faults: Faults,
        seed: int,
        settings: str = "",
    ) -> None:
        if worker.partitions.config.guard == "validation":
            check(data)
        self.worker = worker
        self.privacy = privacy
        self.faults = faults
        self.seed = seed
        self.settings = settings
        self.secret = ""
        self.foundation = worker.backend.foundation
        self._census = census(data, worker)
        self._origins = {member.client: member.origin for member in self._census.members}
        self._memory = Memory()
        self._frozen = Frozen()

    def join(self) -> Census:
        """Its clients."""
        return self._census

    def plan(self, work: Sequence[Work], capacity: Mapping[str, int] | None = None) -> Company:
        """See `fedpl.executors.protocol.Executor.plan`; who is going to be lost is in no group."""
        backend = self.worker.backend
        if capacity:
            backend.use(capacity)
        there = [each for each in work if not self.faults.lost(each.client, each.round)]
        groups: Sequence[Sequence[str]] = []
        if there:
            groups = self.worker.groups([each.client for each in there], there[0].round)
        together = self.faults.company(groups)
        return Company(tuple(tuple(members) for members in together), backend.capacity())

    def train(self, group: Sequence[Work], into: Mapping[str, Float[Tensor, "params"]]) -> Iterator[Report]:
        """Train clients that train together; their reports, once all task vectors are as they leave.

        Args:
            group: Work of one round with one objective.
            into: A row for each client.

        Raises:
            UserError: If the work expects other frozen weights, or a memory that is not here.
        """
        received, choices = self._received(group)
        assignments = [
            Assignment(each.client, own, self._memory.recall(each.client, each.memory), each.halves)
            for each, own in zip(group, received, strict=True)
        ]
        self._check(group)
        reports: list[Report] = []
        begin = time.perf_counter()
        for places, theta, fits in self.worker.fit(assignments, group[0].round, group[0].objective):
            trained = time.perf_counter()
            mine = [group[place] for place in places]
            scores = self._scores(mine, theta, fits)
            scored = time.perf_counter()
            # What a cohort took together is shared out evenly.
            seconds = Seconds((trained - begin) / len(places), 0.0, (scored - trained) / len(places))
            for i, place in enumerate(places):
                work, row = group[place], into[group[place].client]
                torch.sub(theta[i].to(row.device), received[place].to(row.device), out=row)
                used = self._used(work, theta[i], fits[i])
                done = Trained(work, received[place], choices[place], fits[i], used)
                reports.append(self._report(done, row, scores[i], seconds))
            del theta, fits  # as large as the cohort, while the next one trains
            begin = time.perf_counter()
        sent = {each.client: into[each.client] for each in group if each.sends}
        for place, each in enumerate(group):
            if each.sends:
                release = self._release(each, received[place])
                privatise(sent[each.client], self.privacy, self.seed, each.round, each.client, release)
        self.faults.attack(sent, group[0].round)
        yield from reports

    def score(
        self, clients: Sequence[str], models: Float[Tensor, "clients params"], split: str
    ) -> dict[str, Scores]:
        """Quality of one adapter per client on a split of the client's own data, of those that have some."""
        places = [place for place, client in enumerate(clients) if self._has(client, split)]
        if len(places) < len(clients):
            clients, models = [clients[place] for place in places], models[places]
        return dict(zip(clients, self.worker.score(clients, models, split), strict=True))

    def tell(self, notice: Notice) -> None:
        """Take a notice."""
        match notice:
            case Begin():
                self._memory = Memory(None if notice.folder is None else Path(notice.folder))
            case Frozen():
                self._frozen = notice._replace(residual=None)
                self.foundation.shift(notice.residual)
            case Deliver():
                deliver(notice, self.foundation, self._memory, self.worker.partitions.classes)
                deliver_answers(notice, self.worker)
            case Choose():
                let_choose(notice, self.worker, self._memory, self.score)

    def _release(self, work: Work, received: Float[Tensor, "params"]) -> str:
        """What a task vector comes of, for noise that no other one gets."""
        known = f"{self.settings} {work.run} {self._origins[work.client]}"
        if not self.secret or self.privacy.clip is None:
            return known
        # Who sends a round's work twice, with another start, must not get the same noise on both answers.
        start = hashlib.blake2b(received.cpu().numpy().tobytes(), digest_size=16).hexdigest()
        return f"{known} {self.secret} {start}"

    def _check(self, group: Sequence[Work]) -> None:
        for each in group:
            if each.frozen != self._frozen.digest:
                raise UserError(
                    f"round {each.round}: the frozen weights here are {self._frozen.digest or 'unchanged'}, "
                    f"client '{each.client}' is to train on {each.frozen or 'unchanged ones'}"
                )

    def _received(self, group: Sequence[Work]) -> tuple[list[Float[Tensor, "params"]], list[int | None]]:
        """What each client starts from, and which of several models it chose."""
        if group[0].received.dim() == 1:
            return [each.received for each in group], [None] * len(group)
        losses = self.worker.losses([each.client for each in group], group[0].received)
        losses[~losses.isfinite()] = torch.inf
        choices = losses.argmin(1).tolist()
        return [each.received[choice] for each, choice in zip(group, choices, strict=True)], choices

    def _scores(
        self, group: Sequence[Work], theta: Float[Tensor, "clients params"], fits: Sequence[Fit]
    ) -> list[dict[str, Scores]]:
        """Scores of the models that a cohort's clients use after training, by split."""
        found: list[dict[str, Scores]] = [{} for _ in group]
        for split in dict.fromkeys(split for each in group for split in each.splits):
            chosen = [
                i for i, each in enumerate(group) if split in each.splits and self._has(each.client, split)
            ]
            if not chosen:
                continue
            rows = [theta[i] if (model := fits[i].tuned) is None else model for i in chosen]
            scores = self.worker.score([group[i].client for i in chosen], stack_models(rows), split)
            for i, own in zip(chosen, scores, strict=True):
                found[i][split] = own
        return found

    def _used(self, work: Work, theta: Tensor, fit: Fit) -> Tensor | None:
        """The model that a client uses after the last round, if it is going to choose whether it stays so."""
        if "test" not in work.splits or self.worker.partitions.config.guard == "none":
            return None
        used = theta if fit.tuned is None else fit.tuned
        assert isinstance(used, Tensor), "pairs of adapters are refused in the settings"
        return used

    def _has(self, client: str, split: str) -> bool:
        """Whether there is anything to score a client on."""
        return len(self.worker.partitions.examples[client, split]) > 0

    def _report(
        self, done: Trained, row: Float[Tensor, "params"], scores: Mapping[str, Scores], seconds: Seconds
    ) -> Report:
        work, fit = done.work, done.fit
        kept = work.memory
        if done.used is not None:
            before = self._memory.recall(work.client, work.memory) if fit.state is None else fit.state
            kept = self._memory.keep(work.client, {**before, TUNED: done.used.to("cpu", copy=True)})
        elif fit.state is not None:
            kept = self._memory.keep(work.client, fit.state)
        return Report(
            client=work.client,
            vector=row,
            examples=len(self.worker.partitions.examples[work.client, "train"]),
            steps=fit.steps,
            loss=fit.loss,
            scores=scores,
            seconds=seconds,
            memory=kept,
            choice=done.choice,
            late=self.faults.late(work.client, work.round),
            attempt=work.attempt,
            halves=fit.halves,
        )
