"""Differential privacy of what a client sends; `PrivacyConfig` says what is guaranteed and what is not."""

import math
from typing import TYPE_CHECKING

from jaxtyping import Float

from fedpl.conditions import PrivacyConfig
from fedpl.deferred import deferred
from fedpl.randomness import derive_seed

if TYPE_CHECKING:
    import torch
else:
    torch = deferred("torch")

optimize, special = map(deferred, ("scipy.optimize", "scipy.special"))


def privatise(
    vector: "Float[torch.Tensor, 'params']",
    privacy: PrivacyConfig,
    seed: int,
    round: int,
    client: str,
    release: str = "",
) -> None:
    """Clip a task vector and add Gaussian noise, in place: τ ← τ · min(1, C / ‖τ‖) + z C · N(0, I).

    Args:
        vector: τ, before it leaves the client.
        privacy: C = clip and z = noise_multiplier; nothing is done without a clip.
        seed: The run's seed. Whoever knows it can take the noise away: in a simulation it is known.
        round: Number of the round.
        client: Client id.
        release: What the vector comes of: settings, method, the client's data. With equal noise for two
            vectors their difference would be free of it.
    """
    if privacy.clip is None:
        return
    norm = float(torch.linalg.vector_norm(vector, dtype=torch.float64))
    if norm > privacy.clip:
        vector *= privacy.clip / norm
    stream = torch.Generator().manual_seed(derive_seed(seed, f"privacy {release}", round, client))
    noise = torch.randn(len(vector), generator=stream).to(vector.device)
    vector.add_(noise, alpha=privacy.noise_multiplier * privacy.clip)


def epsilon(privacy: PrivacyConfig, releases: int) -> float:
    """ε at δ after a client has sent so many noised task vectors, exactly.

    Any two vectors of length at most C are at most 2C apart, and the noise has standard deviation z C: one
    release is Gaussian differential privacy with μ = 2 / z, and T adaptive releases with μ = 2 √T / z (Dong,
    Roth and Su 2022). In terms of (ε, δ) that is δ = Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ) (Balle and Wang
    2018).

    Args:
        privacy: z = noise_multiplier and δ = delta.
        releases: Task vectors sent by one client.
    """
    mu = 2 * math.sqrt(releases) / privacy.noise_multiplier
    if not mu or _delta(0.0, mu) <= privacy.delta:
        return 0.0
    # Concentrated differential privacy bounds it from above (Bun and Steinke 2016).
    highest = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / privacy.delta))
    return float(optimize.brentq(lambda value: _delta(value, mu) - privacy.delta, 0.0, highest, xtol=1e-12))


def _delta(epsilon: float, mu: float) -> float:
    # exp(ε) Φ(−b) = exp(−a² / 2) erfcx(b / √2) / 2, as ε = (b² − a²) / 2: nothing in it overflows.
    a, b = mu / 2 - epsilon / mu, mu / 2 + epsilon / mu
    return float(special.ndtr(a) - math.exp(-a * a / 2) * special.erfcx(b / math.sqrt(2)) / 2)
