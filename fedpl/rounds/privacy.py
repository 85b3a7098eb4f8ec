"""Differential privacy of what a client sends; `PrivacyConfig` says what is guaranteed and what is not."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.conditions import PrivacyConfig
from fedpl.errors import UserError
from fedpl.randomness import derive_seed


def privatise(
    vector: Float[Tensor, "params"], privacy: PrivacyConfig, seed: int, round: int, client: str
) -> None:
    """Clip a task vector and add Gaussian noise, in place: τ ← τ · min(1, C / ‖τ‖) + z C · N(0, I).

    Args:
        vector: τ, before it leaves the client.
        privacy: C = clip and z = noise_multiplier; nothing is done without a clip.
        seed: The run's seed. Whoever knows it can take the noise away: in a simulation it is known.
        round: Number of the round.
        client: Client id.
    """
    if privacy.clip is None:
        return
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    if norm > privacy.clip:
        vector *= privacy.clip / norm
    stream = torch.Generator().manual_seed(derive_seed(seed, "privacy", round, client))
    noise = torch.randn(len(vector), generator=stream).to(vector.device)
    vector.add_(noise, alpha=privacy.noise_multiplier * privacy.clip)


def require_accountant(privacy: PrivacyConfig) -> None:
    """Find out before any work whether ε can be computed.

    Raises:
        UserError: If privacy is asked for and the package is missing.
    """
    if privacy.clip is None:
        return
    try:
        import dp_accounting  # noqa: F401
    except ImportError as error:
        raise UserError(
            "privacy.clip: ε is computed by the package dp-accounting, which is not installed; "
            "install it with pip install 'fedpl[privacy]', or set privacy.clip to null"
        ) from error


def epsilon(privacy: PrivacyConfig, releases: int) -> float:
    """ε at δ after a client has sent so many noised task vectors.

    Each is a Gaussian mechanism of sensitivity 2C (any two vectors of length at most C) and noise z C, so of
    noise multiplier z / 2; they compose adaptively. The accountant's numerical composition of privacy loss
    distributions gives an upper bound.

    Args:
        privacy: The settings; its clip must not be null.
        releases: Task vectors sent by one client.
    """
    import dp_accounting
    from dp_accounting import pld

    if releases == 0:
        return 0.0
    # T Gaussian mechanisms are one with √T times less noise, exactly: one distribution to discretise.
    event = dp_accounting.GaussianDpEvent(privacy.noise_multiplier / 2 / math.sqrt(releases))
    return float(pld.PLDAccountant().compose(event).get_epsilon(privacy.delta))
