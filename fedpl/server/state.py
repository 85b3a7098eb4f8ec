"""What the server holds between rounds and what a round brings it. JAX arrays throughout."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from fedpl.errors import UserError
from fedpl.files import read_tensors, write_tensors
from fedpl.server.models import Models
from fedpl.server.parts import read_models
from fedpl.server.rows import once, spread

_MEMORY = "memory."


class TaskVectors(NamedTuple):
    """One round's task vectors τᵢ = θᵢ − θ̄ᵢ.

    Attributes:
        matrix: One row per client.
        mask: Who took part; rows of the others are ignored, or hold what they last sent.
        num_examples: Training examples of each client.
        age: Rounds since a client's row was filled: 0 for those who took part, −1 for never; None: all 0.
        true_groups: The clients' groups where the data names them; for studies, no method reads it.
        halves: Mean of what clients reported of their halves (`fedpl.records.messages.Report`), NaN for those
            that never did; None: nobody was asked.
    """

    matrix: Float[Array, "clients params"]
    mask: Bool[Array, "clients"]
    num_examples: Int[Array, "clients"]
    age: Int[Array, "clients"] | None = None
    true_groups: tuple[str, ...] | None = None
    halves: Float[Array, "clients"] | None = None


class ServerState(NamedTuple):
    """Everything the next round needs beside the configuration.

    Attributes:
        round: Rounds finished.
        personal: The aggregates θ̄ᵢ: for a rule one row per client, or one for all; a writable NumPy array or
            `fedpl.server.panels.OnDisk` where they lie on disk. Between the rounds of a run, and where a
            state is kept, `fedpl.server.models.Models`.
        reference: θ₀, where all clients started.
        memory: What the aggregator's choices keep between rounds, each its own: subject, weighting, receive,
            and server for the momentum of its steps.
        residual: What has been added to the frozen weights of all clients (FLoRA, FedEx); None: nothing.
    """

    round: int
    personal: Float[Array, "clients params"]
    reference: Float[Array, "params"]
    memory: Mapping[str, Mapping[str, Array]] = {}
    residual: Float[Array, "weights"] | None = None

    @property
    def models(self) -> Models:
        """The aggregates between the rounds of a run.

        Raises:
            TypeError: If they are those that a rule works on.
        """
        found: Any = self.personal
        if not isinstance(found, Models):
            raise TypeError(f"expected aggregates between rounds, got {type(found).__name__}")
        return found

    def of(self, choice: str) -> dict[str, Array]:
        """What a choice remembers."""
        return dict(self.memory.get(choice, {}))

    def among(self, clients: Sequence[int], personal: Any, by_client: Iterable[str]) -> "ServerState":
        """The state of a federation that consists of these clients alone.

        Args:
            clients: Who.
            personal: Their aggregates.
            by_client: What is received with a row for each client.
        """
        received = self.of("receive")
        if len(clients) < len(self.personal):
            rows = np.array(clients)
            received |= {name: received[name][rows] for name in by_client}
        return self._replace(personal=personal, memory=self._with(received))

    def joined(
        self, before: "ServerState", clients: Sequence[int], personal: Any, by_client: Iterable[str]
    ) -> "ServerState":
        """The state of all clients once those of `among` have moved.

        Args:
            before: That of all clients before.
            clients: Who has moved.
            personal: The aggregates of all.
            by_client: What is received with a row for each client.
        """
        received, earlier = self.of("receive"), before.of("receive")
        if len(clients) < len(before.personal):
            rows = np.array(clients)
            received |= {name: earlier[name].at[rows].set(received[name]) for name in by_client}
        return self._replace(personal=personal, memory=self._with(received))

    def _with(self, received: dict[str, Array]) -> Mapping[str, Mapping[str, Array]]:
        return {**self.memory, **({"receive": received} if "receive" in self.memory else {})}


class Aggregation(NamedTuple):
    """How a round was aggregated, per block.

    Attributes:
        similarity: sᵢₖ between task vectors.
        weights: pᵢₖ, row i for client i.
        kept: By which factor a task vector was shortened before it was used; 1: not at all.
    """

    similarity: Float[Array, "blocks clients clients"]
    weights: Float[Array, "blocks clients clients"]
    kept: Float[Array, "clients"]


def state_tensors(state: ServerState, aggregates: bool = True) -> dict[str, np.ndarray]:
    """A state's arrays by name; the round is not among them.

    Args:
        state: The state.
        aggregates: Whether the aggregates are.
    """
    arrays = {"personal": np.asarray(state.personal)} if aggregates else {}
    arrays["reference"] = np.asarray(state.reference)
    if state.residual is not None:
        arrays["residual"] = np.asarray(state.residual)
    return arrays | {
        f"{_MEMORY}{choice}.{name}": np.asarray(value)
        for choice, own in state.memory.items()
        for name, value in own.items()
    }


def state_of(tensors: Mapping[str, np.ndarray], round: int, personal: Any = None) -> ServerState:
    """The state with these arrays, in memory of its own; other names are not looked at.

    Args:
        tensors: By name.
        round: Rounds finished.
        personal: The aggregates as they are; None: those among the arrays.

    Raises:
        KeyError: If an array of every state is missing.
    """
    memory: dict[str, dict[str, Array]] = {}
    for key, value in tensors.items():
        if key.startswith(_MEMORY):
            choice, _, name = key.removeprefix(_MEMORY).partition(".")
            memory.setdefault(choice, {})[name] = jnp.array(value)
    residual = jnp.array(tensors["residual"]) if "residual" in tensors else None
    personal = jnp.array(tensors["personal"]) if personal is None else personal
    return ServerState(round, personal, jnp.array(tensors["reference"]), memory, residual)


def save_state(state: ServerState, path: Path) -> None:
    """Write a state as one safetensors file."""
    write_tensors(path, once(state_tensors(state)), {"round": str(state.round)})


def load_state(path: Path) -> ServerState:
    """Read the server's state from what `save_state` wrote, or from a checkpoint of a run.

    Raises:
        UserError: If the file is absent, damaged or not such a file.
    """
    tensors, metadata = read_tensors(path)
    try:
        models = read_models(path.parent, tensors, metadata)
        personal = None if models is None else jnp.array(np.asarray(models))
        return state_of(spread(tensors), int(metadata["round"]), personal)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is not a server state written by fedpl: {error}") from error
