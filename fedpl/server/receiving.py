"""Fifth choice of the server: what a client receives before it trains."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from jaxtyping import Bool, Float, Int

from fedpl.deferred import deferred
from fedpl.server.weighting import Memory

if TYPE_CHECKING:
    import jax
    import jax.numpy as jnp
else:
    jax, jnp = map(deferred, ("jax", "jax.numpy"))


class Receive(ABC):
    """What clients start from. Its memory is its own: a mapping from names to arrays."""

    several: ClassVar[bool] = False
    """Whether clients choose among several models, see `Evidence.choices`."""
    by_client: ClassVar[tuple[str, ...] | None] = None
    """Names in its memory of what has an entry for each client, first axis; None: it does not say, and its
    rounds are those of all clients, present or not."""

    @abstractmethod
    def start(self, reference: "Float[jax.Array, 'params']", clients: int) -> Memory:
        """Memory before the first round."""

    def offer(self, memory: Memory) -> "Float[jax.Array, 'models params'] | None":
        """Models among which each client takes the one of least loss; None: it receives its own aggregate."""
        return None

    def settle(
        self,
        personal: "Float[jax.Array, 'clients params']",
        memory: Memory,
        choices: "Int[jax.Array, 'clients']",
    ) -> "tuple[Float[jax.Array, 'clients params'], Memory]":
        """What clients have started from, and the memory, once they have said what they chose.

        Args:
            personal: Aggregates before the round.
            memory: Memory before it.
            choices: Number of the model that each client chose; −1 for those who took no part.
        """
        return personal, memory

    def choices(self, memory: Memory) -> "Int[jax.Array, 'clients'] | None":
        """Which model each client chose last."""
        return None

    def after(
        self,
        personal: "Float[jax.Array, 'clients params']",
        memory: Memory,
        present: "Bool[jax.Array, 'clients']",
    ) -> Memory:
        """Memory after a round.

        Args:
            personal: Aggregates after it.
            memory: Memory since its clients chose.
            present: Who took part.
        """
        return memory

    def parameters(self, own: int) -> int:
        """How many parameters a client receives, where its own aggregate has so many."""
        return own

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        return ()


@dataclass(frozen=True)
class Own(Receive):
    """Each client receives its own aggregate θ̄ᵢ (FedBip)."""

    by_client: ClassVar[tuple[str, ...] | None] = ()

    def start(self, reference: "Float[jax.Array, 'params']", clients: int) -> Memory:
        return {}


@dataclass(frozen=True)
class BestOf(Receive):
    """All clients receive several models, and each trains the one of least loss on its training data (IFCA,
    NeurIPS 2020). Goes with the weighting `SameChoice`.

    Attributes:
        models: How many.
        spread: Standard deviation of the models' differences at the start (identical ones would stay so).
        seed: Seed of these differences; another one is a restart.
    """

    models: int = 2
    spread: float = 0.02
    seed: int = 0
    several: ClassVar[bool] = True
    by_client: ClassVar[tuple[str, ...] | None] = ("choices",)

    def start(self, reference: "Float[jax.Array, 'params']", clients: int) -> Memory:
        noise = jax.random.normal(jax.random.key(self.seed), (self.models, len(reference)))
        return {"models": reference + self.spread * noise, "choices": jnp.zeros(clients, jnp.int32)}

    def offer(self, memory: Memory) -> "Float[jax.Array, 'models params'] | None":
        return memory["models"]

    def settle(
        self,
        personal: "Float[jax.Array, 'clients params']",
        memory: Memory,
        choices: "Int[jax.Array, 'clients']",
    ) -> "tuple[Float[jax.Array, 'clients params'], Memory]":
        new = jnp.where(choices >= 0, choices, memory["choices"])
        started = jax.jit(_started)(personal, memory["models"], new, choices >= 0)  # one new matrix, not two
        return started, {**memory, "choices": new}

    def choices(self, memory: Memory) -> "Int[jax.Array, 'clients'] | None":
        return memory["choices"]

    def after(
        self,
        personal: "Float[jax.Array, 'clients params']",
        memory: Memory,
        present: "Bool[jax.Array, 'clients']",
    ) -> Memory:
        """Each model is the mean of what its present clients now hold; without any it stays."""
        models = memory["models"]
        chose = (memory["choices"] == jnp.arange(len(models))[:, None]) & present
        share = chose / jnp.maximum(chose.sum(1, keepdims=True), 1)
        mean = jnp.matmul(share, jnp.where(present[:, None], personal, 0.0), precision="highest")
        return {**memory, "models": jnp.where(chose.any(1)[:, None], mean, models)}

    def parameters(self, own: int) -> int:
        return self.models * own

    def problems(self) -> Sequence[str]:
        return () if self.models >= 1 else [f"aggregator.receive.models: at least 1, got {self.models}"]


def _started(
    personal: "Float[jax.Array, 'clients params']",
    models: "Float[jax.Array, 'models params']",
    choices: "Int[jax.Array, 'clients']",
    chose: "Bool[jax.Array, 'clients']",
) -> "Float[jax.Array, 'clients params']":
    """The model that a client chose, its own aggregate where it chose none."""
    return jnp.where(chose[:, None], models[choices], personal)
