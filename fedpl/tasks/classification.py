"""Text classification: one label a text, a pooled vector, a linear head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from fedpl.data import ClientData, Pairs, Split
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


def check_pairs(tokenizer: Any, model: ModelConfig) -> bool:
    """Whether the model is told which text of a pair each token belongs to.

    Raises:
        UserError: If nothing tells it where the first text ends.
    """
    typed = getattr(pretrained.kind_of(model), "type_vocab_size", 0) > 1
    apart = tokenizer.num_special_tokens_to_add(True) > tokenizer.num_special_tokens_to_add(False)
    if not typed and not apart:
        raise UserError(
            f"data.columns.text_pair: the tokenizer of {model.path} puts nothing between two texts, "
            f"and the model knows no types of tokens; take an encoder such as BERT, or write both texts in "
            f"one column"
        )
    return typed


def text_encoder(
    model: ModelConfig, targets: "Callable[[Split], Tensor]"
) -> "Callable[..., examples.Examples]":
    """How texts, or pairs of them, become tensors, as `Task.encoder`.

    Args:
        model: Which model.
        targets: What is right for each example of a split, [examples].
    """
    tokenizer = pretrained.load_tokenizer(model)
    types_of_pairs = cache(lambda: check_pairs(tokenizer, model))

    def encode(split: Split, scored: bool = False) -> "examples.Examples":
        pad = int(tokenizer.pad_token_id)
        if not len(split):
            return examples.Examples([], targets(split), pad)
        texts, typed = [list(split.texts)], False
        if isinstance(split, Pairs) and split.seconds:
            typed = types_of_pairs()
            texts.append(list(split.seconds))
        # Of a pair that is too long the longer text is cut, token by token.
        found = tokenizer(
            *texts,
            truncation="longest_first",
            max_length=model.max_length,
            return_token_type_ids=typed,
        )
        check_known(tokenizer, found["input_ids"], model.path)
        ids = [torch.tensor(row) for row in found["input_ids"]]
        types = [torch.tensor(row) for row in found["token_type_ids"]] if typed else None
        return examples.Examples(ids, targets(split), pad, types=types)

    return encode


@dataclass(frozen=True)
class Classification(Task):
    """One of several classes for each text, or pair of texts."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return CLASSIFICATION

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "models.PooledClassifier":
        return models.load_base(model, len(classes), True)

    def encoder(self, model: ModelConfig) -> "Callable[..., examples.Examples]":
        return text_encoder(model, lambda split: torch.tensor(split.labels, dtype=torch.long))

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
