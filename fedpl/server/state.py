"""What the server holds between rounds and what a round brings it. JAX arrays throughout."""

from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedpl.errors import UserError
from fedpl.files import write_atomically

_MEMORY = "memory."


class TaskVectors(NamedTuple):
    """One round's task vectors τᵢ = θᵢ − θ̄ᵢ.

    Attributes:
        matrix: One row per client.
        mask: Who took part; rows of the others are ignored, or hold what they last sent.
        num_examples: Training examples of each client.
        age: Rounds since a client's row was filled: 0 for those who took part, −1 for never; None: all 0.
        true_groups: The clients' groups where the data names them; for studies, no method reads it.
    """

    matrix: Float[Array, "clients params"]
    mask: Bool[Array, "clients"]
    num_examples: Int[Array, "clients"]
    age: Int[Array, "clients"] | None = None
    true_groups: tuple[str, ...] | None = None


class ServerState(NamedTuple):
    """Everything the next round needs beside the configuration.

    Attributes:
        round: Rounds finished.
        personal: The aggregates θ̄ᵢ, one row per client.
        reference: θ₀, where all clients started.
        memory: What the aggregator keeps between rounds, by name (averages, momentum, cluster labels).
    """

    round: int
    personal: Float[Array, "clients params"]
    reference: Float[Array, "params"]
    memory: dict[str, Array] = {}  # noqa: RUF012 - never changed in place


class Aggregation(NamedTuple):
    """How a round was aggregated, per block.

    Attributes:
        similarity: sᵢₖ between task vectors.
        weights: pᵢₖ, row i for client i.
    """

    similarity: Float[Array, "blocks clients clients"]
    weights: Float[Array, "blocks clients clients"]


def save_state(state: ServerState, path: Path) -> None:
    """Write a state as one safetensors file."""
    arrays = {"personal": np.asarray(state.personal), "reference": np.asarray(state.reference)}
    arrays |= {_MEMORY + name: np.asarray(value) for name, value in state.memory.items()}
    write_atomically(path, save(arrays, metadata={"round": str(state.round)}))


def load_state(path: Path) -> ServerState:
    """Read what `save_state` wrote.

    Raises:
        UserError: If the file is absent or is not such a file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            round = int(file.metadata()["round"])
            personal, reference = file.get_tensor("personal"), file.get_tensor("reference")
            kept = [name for name in file.keys() if name.startswith(_MEMORY)]  # noqa: SIM118
            memory = {name.removeprefix(_MEMORY): jnp.asarray(file.get_tensor(name)) for name in kept}
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is not a server state written by fedpl: {error}") from error
    return ServerState(round, jnp.asarray(personal), jnp.asarray(reference), memory)
