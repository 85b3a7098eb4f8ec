"""Regression: one number a text, a pooled vector, a linear head of one row."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpl.data import ClientData, FederatedData, Rated, Split
from fedpl.data.wording import readable
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import Metric, Scores, best
from fedpl.tasks.metrics import REGRESSION, regression_scores
from fedpl.tasks.task import Task

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.model import base as models
    from fedpl.tasks import examples, texts
else:
    torch, models, texts = map(deferred, ("torch", "fedpl.model.base", "fedpl.tasks.texts"))


@dataclass(frozen=True)
class Regression(Task):
    """A number for each text, or pair of texts; the loss is the squared error, in the scale from −1 to 1.

    The scale is a setting, the same for all clients: task vectors are comparable only in one unit, and one
    that came from the clients' own numbers would tell the server about them.

    Attributes:
        low: The smallest number that there can be: −1 to the model.
        high: The largest: 1 to the model. Answers may lie outside.
    """

    low: float = 0.0
    high: float = 1.0

    labelled: ClassVar[bool] = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return REGRESSION

    def problems(self) -> Sequence[str]:
        if self.low < self.high:  # no NaN either
            return ()
        return (f"task.low: has to be less than task.high, got {self.low} and {self.high}",)

    def take(self, data: FederatedData) -> FederatedData:
        found: list[float] = []
        for client in data.clients:
            for split in (client.train, client.validation, client.test):
                if not isinstance(split, Rated) and len(split):
                    raise UserError(
                        "task: Regression learns numbers, and the data have none; name their column with "
                        "data.columns.value"
                    )
                found += split.values if isinstance(split, Rated) else ()
            if found and not (self.low <= min(found) and max(found) <= self.high):
                raise UserError(
                    f"task.low: client '{readable(client.id)}' has numbers that are not from {self.low:g} to "
                    f"{self.high:g}; say from where to where they can be with --task.low and --task.high"
                )
        return data

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "models.PooledClassifier":
        return models.load_base(model, 1, True)

    def encoder(self, model: ModelConfig) -> "Callable[..., examples.Examples]":
        def values(split: Split) -> "Tensor":
            own = split.values if isinstance(split, Rated) else split.labels  # what only is to be answered
            return torch.tensor(own, dtype=torch.float32)

        return texts.Texts(model, values)

    def losses(self, outputs: "Float[Tensor, 'rows one']", targets: "Tensor") -> "Float[Tensor, 'rows']":
        return (outputs[:, 0].float() - (targets - self._middle) / self._half).square()

    def answers(self, outputs: "Float[Tensor, 'rows one']") -> list[Any]:
        return (outputs[:, 0].cpu().double() * self._half + self._middle).tolist()

    def score(self, targets: Sequence[float], answers: Sequence[float]) -> Scores:
        return regression_scores(targets, answers)

    def floor(self, client: ClientData, train: "examples.Examples", test: "examples.Examples") -> Scores:
        known, right = train.targets.tolist(), test.targets.tolist()
        constants = (statistics.fmean(known), statistics.median(known))
        return best([self.score(right, [one] * len(right)) for one in constants], self.metrics[0])

    @property
    def _middle(self) -> float:
        return (self.high + self.low) / 2

    @property
    def _half(self) -> float:
        return (self.high - self.low) / 2
