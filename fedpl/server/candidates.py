"""Several models among which clients choose (IFCA): how they start, are chosen and move."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from fedpl.server.clustering import Ifca
from fedpl.server.state import ServerState


def start(settings: Ifca, reference: Float[Array, "params"], clients: int) -> dict[str, Array]:
    """Models around θ₀; equal ones would stay equal."""
    noise = jax.random.normal(jax.random.key(settings.seed), (settings.models, len(reference)))
    models = reference + settings.spread * noise
    return {"ifca.models": models, "ifca.labels": jnp.zeros(clients, jnp.int32)}


def assign(state: ServerState, losses: Float[Array, "clients models"]) -> ServerState:
    """Every client receives the model of least loss; losses that are not finite are worst."""
    labels = jnp.argmin(jnp.where(jnp.isfinite(losses), losses, jnp.inf), axis=1).astype(jnp.int32)
    memory = {**state.memory, "ifca.labels": labels}
    return state._replace(personal=state.memory["ifca.models"][labels], memory=memory)


def remember(
    memory: dict[str, Array], personal: Float[Array, "clients params"], present: Bool[Array, "clients"]
) -> dict[str, Array]:
    """The models after the round: each is what its present clients now hold; without any it stays."""
    models = memory.get("ifca.models")
    if models is None:
        return {}
    chose = (memory["ifca.labels"] == jnp.arange(len(models))[:, None]) & present
    share = chose / jnp.maximum(chose.sum(1, keepdims=True), 1)
    mean = jnp.matmul(share, jnp.where(present[:, None], personal, 0.0), precision="highest")
    return {"ifca.models": jnp.where(chose.any(1)[:, None], mean, models)}
