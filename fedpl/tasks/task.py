"""What clients learn: what an example is, how it becomes tensors, which model, its loss, how it is scored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fedpl.data import ClientData, Split
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import Metric, Scores

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.model.base import PooledClassifier
    from fedpl.tasks.examples import Examples


@dataclass(frozen=True)
class Task(ABC):
    """A kind of task, as functions without state. Implementations are named by ``class_path``.

    Attributes:
        metrics: What a score consists of; the first is the primary one: tables, pictures, harm and searches
            follow its unit and direction.
    """

    metrics: ClassVar[tuple[Metric, ...]]

    @abstractmethod
    def base(self, model: ModelConfig, classes: Sequence[str]) -> "PooledClassifier":
        """The frozen model with whatever head the task needs.

        Args:
            model: Which model.
            classes: Names of the classes.

        Raises:
            UserError: If there is no such model.
        """

    @abstractmethod
    def encoder(self, model: ModelConfig) -> "Callable[[Split], Examples]":
        """How a split becomes tensors for this model; it may be without examples.

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

    @abstractmethod
    def floor(self, client: ClientData) -> Scores:
        """Scores on a client's test split, which has examples, of the best answer that looks at no input."""

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        return ()
