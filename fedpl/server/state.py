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


class TaskVectors(NamedTuple):
    """One round's task vectors τᵢ = θᵢ − θ̄ᵢ.

    Attributes:
        matrix: One row per client.
        mask: Who took part; rows of the others are ignored.
        num_examples: Training examples of each client.
    """

    matrix: Float[Array, "clients params"]
    mask: Bool[Array, "clients"]
    num_examples: Int[Array, "clients"]


class ServerState(NamedTuple):
    """Everything the next round needs beside the configuration.

    Attributes:
        round: Rounds finished.
        personal: The aggregates θ̄ᵢ, one row per client.
        reference: θ₀, where all clients started.
    """

    round: int
    personal: Float[Array, "clients params"]
    reference: Float[Array, "params"]


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
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is not a server state written by fedpl: {error}") from error
    return ServerState(round, jnp.asarray(personal), jnp.asarray(reference))
