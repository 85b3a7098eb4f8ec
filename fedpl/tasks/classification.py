"""Text classification: one label a text, a pooled vector, a linear head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedpl.data import ClientData, Split
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import Metric, Scores
from fedpl.tasks.metrics import CLASSIFICATION, classification_scores
from fedpl.tasks.task import Task

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.model import base as models
    from fedpl.model import pretrained
    from fedpl.tasks import examples
else:
    torch, models, pretrained, examples = map(
        deferred, ("torch", "fedpl.model.base", "fedpl.model.pretrained", "fedpl.tasks.examples")
    )


_ENOUGH = 20  # tokens, from which on the share of unknown ones says something


def check_known(tokenizer: Any, encoded: Sequence[Sequence[int]], path: str) -> None:
    """Refuse a tokenizer to which most of a client's texts are unknown: all words would be the same one.

    Raises:
        UserError: Naming the model and the share.
    """
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    words = [token for row in encoded for token in row if token not in special]
    unknown = sum(token == tokenizer.unk_token_id for token in words)
    if len(words) >= _ENOUGH and unknown > len(words) / 2:
        share = f"{100 * unknown / len(words):.0f} %"
        raise UserError(
            f"model.path: the tokenizer of {path} does not know {share} of the words of a client's texts, "
            f"expected at most half; put the model's own tokenizer into its folder, or take a model for this "
            f"language"
        )


@dataclass(frozen=True)
class Classification(Task):
    """One of several classes for each text."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return CLASSIFICATION

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "models.PooledClassifier":
        return models.load_base(model, len(classes), True)

    def encoder(self, model: ModelConfig) -> "Callable[..., examples.Examples]":
        tokenizer = pretrained.load_tokenizer(model)

        def encode(split: Split, scored: bool = False) -> "examples.Examples":
            texts = list(split.texts)
            encoded = (
                tokenizer(texts, truncation=True, max_length=model.max_length)["input_ids"] if texts else []
            )
            check_known(tokenizer, encoded, model.path)
            ids = [torch.tensor(row) for row in encoded]
            return examples.Examples(
                ids, torch.tensor(split.labels, dtype=torch.long), int(tokenizer.pad_token_id)
            )

        return encode

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
