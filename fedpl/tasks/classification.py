"""Text classification: one label a text, a pooled vector, a linear head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpl.data import ClientData
from fedpl.deferred import deferred
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import Metric, Scores
from fedpl.tasks.metrics import CLASSIFICATION, classification_scores
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
class Classification(Task):
    """One of several classes for each text, or pair of texts."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return CLASSIFICATION

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "models.BaseModel":
        return models.load_base(model, len(classes), True)

    def encoder(self, model: ModelConfig) -> "Callable[..., examples.Examples]":
        return texts.Texts(model, lambda split: torch.tensor(split.labels, dtype=torch.long))

    def losses(self, outputs: "Float[Tensor, 'rows classes']", targets: "Tensor") -> "Float[Tensor, 'rows']":
        return torch.nn.functional.cross_entropy(outputs.float(), targets, reduction="none")

    def answers(self, outputs: "Float[Tensor, 'rows classes']") -> list[Any]:
        return outputs.argmax(-1).tolist()

    def score(self, targets: Sequence[int], answers: Sequence[int]) -> Scores:
        return classification_scores(targets, answers)

    def goods(self, targets: Sequence[int], answers: Sequence[int]) -> list[float]:
        return [float(target == answer) for target, answer in zip(targets, answers, strict=True)]

    def floor(self, client: ClientData, train: "examples.Examples", test: "examples.Examples") -> Scores:
        return self.score(client.test.labels, [client.majority()] * len(client.test))
