"""Text classification: one label a text, a pooled vector, a linear head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpl.data import ClientData, Split
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
    from fedpl.tasks import examples
else:
    torch, models, examples = map(deferred, ("torch", "fedpl.model.base", "fedpl.tasks.examples"))


@dataclass(frozen=True)
class Classification(Task):
    """One of several classes for each text."""

    metrics: ClassVar[tuple[Metric, ...]] = CLASSIFICATION

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "models.PooledClassifier":
        return models.load_base(model, len(classes))

    def encoder(self, model: ModelConfig) -> "Callable[[Split], examples.Examples]":
        tokenizer = models.load_tokenizer(model)

        def encode(split: Split) -> "examples.Examples":
            encoded = tokenizer(list(split.texts), truncation=True, max_length=model.max_length)["input_ids"]
            ids = [torch.tensor(row) for row in encoded]
            return examples.Examples(ids, torch.tensor(split.labels), int(tokenizer.pad_token_id))

        return encode

    def losses(self, outputs: "Float[Tensor, 'rows classes']", targets: "Tensor") -> "Float[Tensor, 'rows']":
        return torch.nn.functional.cross_entropy(outputs.float(), targets, reduction="none")

    def answers(self, outputs: "Float[Tensor, 'rows classes']") -> list[Any]:
        return outputs.argmax(-1).tolist()

    def score(self, targets: Sequence[int], answers: Sequence[int]) -> Scores:
        return classification_scores(targets, answers)

    def floor(self, client: ClientData) -> Scores:
        return self.score(client.test.labels, [client.majority()] * len(client.test))
