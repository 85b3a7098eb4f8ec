"""What clients learn: what an example is, how it becomes tensors, which model, its loss, how it is scored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpl.data import ClientData, Dialogues, FederatedData, Images, Rated, Split
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import Metric, Scores
from fedpl.tasks.decoding import DecodingConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.model.base import BaseModel
    from fedpl.tasks.examples import Examples
    from fedpl.tasks.templates import Questions


@dataclass(frozen=True)
class Task(ABC):
    """A kind of task, as functions without state. Implementations are named by ``class_path``.

    Attributes:
        decoded: What a score of answers in words consists of; empty: the task has none to be decoded.
        headed: Whether there is a head to train beside the adapter; without classes there is none.
        labelled: Whether answers are classes.
        pictured: Whether examples are images.
        zero_shot: Whether the frozen model answers without any training, so that it counts for the floor.
    """

    decoded: ClassVar[tuple[Metric, ...]] = ()
    headed: ClassVar[bool] = True
    labelled: ClassVar[bool] = True
    pictured: ClassVar[bool] = False
    zero_shot: ClassVar[bool] = False

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """What a score consists of; the first is the primary one: tables, pictures, harm and searches follow
        its unit and direction."""

    @property
    def writes(self) -> DecodingConfig | None:
        """How answers in words are written whenever models are scored; None: none are."""
        return None

    def take(self, data: FederatedData) -> FederatedData:
        """The data as the task needs them, with what there is to be said about it.

        Raises:
            UserError: If they are of another kind.
        """
        if any(isinstance(client.train, Images) for client in data.clients):
            raise UserError(
                f"task: {type(self).__name__} learns texts, and the data have images; set --task "
                f"fedpl.tasks.ImageClassification"
            )
        if any(isinstance(client.train, Rated) for client in data.clients):
            raise UserError(
                f"task: {type(self).__name__} learns labels, and the data have numbers (data.columns.value); "
                f"set --task fedpl.tasks.Regression, or name data.columns.label"
            )
        if any(isinstance(client.train, Dialogues) for client in data.clients):
            raise UserError(
                f"task: {type(self).__name__} learns labels, and the data have prompts with answers; set "
                f"--task fedpl.tasks.Generation or fedpl.tasks.Choice, or name data.columns.text and label"
            )
        return data

    @abstractmethod
    def base(self, model: ModelConfig, classes: Sequence[str]) -> "BaseModel":
        """The frozen model with whatever head the task needs.

        Args:
            model: Which model.
            classes: Names of the classes.

        Raises:
            UserError: If there is no such model.
        """

    @abstractmethod
    def encoder(self, model: ModelConfig) -> "Callable[..., Examples]":
        """How a split becomes tensors for this model: a function of it, and of whether it is to be scored.

        The split may be without examples.

        Raises:
            UserError: If there is no such model.
        """

    @abstractmethod
    def losses(self, outputs: "Float[Tensor, 'rows ...']", targets: "Tensor") -> "Float[Tensor, 'rows']":
        """Loss of each row, a mean over its targets.

        Args:
            outputs: What the model gives.
            targets: As in `Examples`.
        """

    @abstractmethod
    def answers(self, outputs: "Float[Tensor, 'rows ...']") -> list[Any]:
        """What the model answers to each row."""

    @abstractmethod
    def score(self, targets: Sequence[Any], answers: Sequence[Any]) -> Scores:
        """Quality of answers, by metric."""

    def goods(self, targets: Sequence[Any], answers: Sequence[Any]) -> list[float]:
        """How good the answer to each example is, the more the better: by the first metric of `score`."""
        found = [self.score([target], [answer]) for target, answer in zip(targets, answers, strict=True)]
        return [metric.sign * own[metric.name] for own in found for metric in self._first(own)]

    def _first(self, scores: Scores) -> tuple[Metric, ...]:
        return tuple(metric for metric in self.metrics if metric.name in scores)[:1]

    @abstractmethod
    def floor(self, client: ClientData, train: "Examples", test: "Examples") -> Scores:
        """Scores on a client's test split, which has examples, of the best answer that looks at no input.

        Args:
            client: The client.
            train: Its training split, encoded.
            test: Its test split, encoded to be scored.
        """

    def questions(self, model: ModelConfig) -> "Callable[[Split], Questions] | None":
        """What is to be answered in words; None: the task has nothing to decode.

        Raises:
            UserError: If there is no such model.
        """
        return None

    def score_decoded(self, references: Sequence[str], answers: Sequence[str]) -> Scores:
        """Quality of answers in words, by the metrics of `decoded`.

        Args:
            references: What is right, from `questions`.
            answers: What was decoded.
        """
        raise NotImplementedError(f"{type(self).__name__} decodes nothing")

    def floor_decoded(self, client: ClientData) -> Scores:
        """`floor` for answers in words."""
        raise NotImplementedError(f"{type(self).__name__} decodes nothing")

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        return ()
