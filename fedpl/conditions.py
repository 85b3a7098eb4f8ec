"""What rounds have to cope with: clients that are away, fail, attack or hide. Settings only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Attack = Literal["sign_flip", "scale", "gaussian", "label_flip", "mimic", "align", "collude"]


@dataclass(frozen=True)
class ParticipationConfig:
    """Who takes part in a round, and whose task vector counts.

    Attributes:
        fraction: Share of the clients drawn for each round, a function of seed and round alone.
        min_clients: Fewest clients of a round: as many are drawn at least, and the run stops with its last
            state intact when fewer task vectors of a round can be used.
        on_client_error: stop: an error while a client trains ends the run; skip: it is reported with its
            traceback, and the client is left out of the round.
        timeout: Seconds after which a round closes: clients that have not begun by then are left out. Those
            that train together always finish. Null waits for all; results then do not depend on the machine.
        max_norm: A task vector longer than so many times the median length of its round (the lower one, of
            those that are not zero) is not used; null takes any length.
    """

    fraction: float = 1.0
    min_clients: int = 1
    on_client_error: Literal["stop", "skip"] = "stop"
    timeout: float | None = None
    max_norm: float | None = 100.0

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        checks = (
            (0 < self.fraction <= 1, f"fraction: must lie in (0, 1], got {self.fraction}"),
            (self.min_clients >= 1, f"min_clients: at least 1, got {self.min_clients}"),
            (
                self.timeout is None or self.timeout >= 0,
                f"timeout: must not be negative, or null to wait for all, got {self.timeout}",
            ),
            (
                self.max_norm is None or self.max_norm > 1,
                f"max_norm: more than 1 times the median, or null for no limit, got {self.max_norm}",
            ),
        )
        return [f"participation.{what}" for holds, what in checks if not holds]


@dataclass(frozen=True)
class FaultsConfig:
    """Simulated faults and attacks, for studies; each is a function of the seed, a resume repeats them.

    Attributes:
        lost: Chance that a client drawn for a round never answers.
        late: Chance that a client's answer comes after the round has closed and is not used.
        hostile: Share of all clients that attack in every round, the same ones throughout.
        attack: What they do to their task vector τ before it is sent. sign_flip: −strength · τ; scale:
            strength · τ; gaussian: noise of strength times the length of τ; label_flip: nothing, they train
            on labels moved on by one class; mimic: all send the τ of one honest client; align: all send a
            vector of its length, times strength, that is halfway between its τ and the opposite of the honest
            clients' mean; collude: all send −strength times that mean.
        strength: Factor of the attack.
    """

    lost: float = 0.0
    late: float = 0.0
    hostile: float = 0.0
    attack: Attack = "sign_flip"
    strength: float = 1.0

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        checks = (
            (0 <= self.lost < 1, f"lost: must lie in [0, 1), got {self.lost}"),
            (0 <= self.late < 1, f"late: must lie in [0, 1), got {self.late}"),
            (0 <= self.hostile < 1, f"hostile: must lie in [0, 1), got {self.hostile}"),
            (self.strength > 0, f"strength: must be positive, got {self.strength}"),
            (
                not self.hostile or self.attack != "scale" or self.strength != 1,
                "strength: scale by 1 is no attack; set another factor",
            ),
        )
        return [f"faults.{what}" for holds, what in checks if not holds]


@dataclass(frozen=True)
class PrivacyConfig:
    """Differential privacy of a client's data against everybody it sends its task vector to.

    Each client clips its τ to the length `clip` and adds Gaussian noise of standard deviation
    noise_multiplier · clip to every number of it before it leaves the client (the Gaussian mechanism, Dwork
    and Roth 2014). The statement is local and on the level of clients: neighbouring are any two data sets
    of one client, all of whose examples may differ (replace-one), so the sensitivity is 2 · clip. ε is that
    of the client which has sent most task vectors; no amplification by sampling is claimed. Losses, scores
    and example counts that a run records are not covered.

    Attributes:
        clip: Largest length of a task vector; null: no clipping, no noise, no privacy.
        noise_multiplier: Standard deviation of the noise as a multiple of clip.
        delta: δ of the (ε, δ) that is reported after each round.
    """

    clip: float | None = None
    noise_multiplier: float = 1.0
    delta: float = 1e-5

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        checks = (
            (
                self.clip is None or self.clip > 0,
                f"clip: must be positive, or null for no privacy, got {self.clip}",
            ),
            (self.noise_multiplier > 0, f"noise_multiplier: must be positive, got {self.noise_multiplier}"),
            (0 < self.delta < 1, f"delta: must lie in (0, 1), got {self.delta}"),
        )
        return [f"privacy.{what}" for holds, what in checks if not holds]
