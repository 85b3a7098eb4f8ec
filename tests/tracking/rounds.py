"""A round as the loop hands it to trackers, made by hand."""

import jax.numpy as jnp
import numpy as np
import torch

from fedpl.records.messages import Seconds
from fedpl.rounds.checkpoints import Ledger
from fedpl.rounds.loop import RoundResult
from fedpl.server.state import ServerState


def rounds_result(clients: int, round: int = 1) -> RoundResult:
    """One block, random similarities."""
    similarity = np.random.default_rng(round).random((1, clients, clients), np.float32)
    nothing = np.zeros((clients, 1), np.float32)
    return RoundResult(
        round=round,
        rows=tuple(range(clients)),
        state=ServerState(round, jnp.array(nothing), jnp.zeros(1, jnp.float32)),
        vectors=torch.from_numpy(nothing),
        similarity=similarity,
        weights=similarity / similarity.sum(2, keepdims=True),
        reports=(),
        aggregated={},
        seconds=Seconds(0.0, 0.0, 0.0),
        bytes_up=0,
        bytes_down=0,
        drawn=clients,
        rejected={},
        noticed={},
        ledger=Ledger.new(clients),
        memories={},
    )
