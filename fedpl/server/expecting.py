"""What is expected of pairs of clients before they are looked at one by one, and what they share by it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from fedpl.server import blocks, mixture


class Expected(NamedTuple):
    """What is known of pairs of clients before they are looked at one by one.

    Attributes:
        noise: Variance of a cosine's noise.
        same: Who is in one group by the cosines alone.
        blind: Who is not, but would look so too with one task: at least one of the two shows too little.
        chance: Probability of being in one group: 1, 0, and where `same` tells nothing that of all others.
        inside: How agreements of members of one group are distributed, see `mixture.learnt`.
        between: The same of all others.
        factor: What reports were multiplied by, see `reports.correction`.
    """

    noise: float
    same: Bool[np.ndarray, "n n"]
    blind: Bool[np.ndarray, "n n"]
    chance: Float[np.ndarray, "n n"]
    inside: Float[np.ndarray, "agreements"]
    between: Float[np.ndarray, "agreements"]
    factor: float = 1.0

    def mass(self, chance: float) -> Float[np.ndarray, "agreements"]:
        """Distribution of the agreement of those that are in one group with this probability."""
        return chance * self.inside + (1 - chance) * self.between


def expect(
    cosine: Float[np.ndarray, "n n"],
    scale: Float[np.ndarray, "n n"],
    groups: Int[np.ndarray, "n"],
    factor: float = 1.0,
) -> Expected:
    """What pairs show of one another.

    The test that finds groups by the cosines alone looks at these as they are. Of two clients whose cosine
    would be nearer to that between groups even if they had one task, it says nothing.

    Args:
        cosine: Of task vectors.
        scale: √(ρᵢρₖ): their cosine if they have one task.
        groups: Those that the cosines alone show.
        factor: See `Expected`.
    """
    noise = blocks.blocks(cosine, groups, scale).noise
    same, off = groups[:, None] == groups, ~np.eye(len(groups), dtype=bool)
    inside, apart = same & off, ~same
    blind = np.zeros_like(same)
    if inside.any() and apart.any():
        blind = apart & (scale < (cosine[inside].mean() + cosine[apart].mean()) / 2)
    told = off & ~blind
    chance = np.where(blind, (inside.sum() + 1) / (told.sum() + 2), same)
    seen, error = cosine / scale, np.sqrt(noise) / scale
    one, other = (mixture.learnt(seen, error, which & told) for which in (same, apart))
    return Expected(noise, same, blind, chance, one, other, factor)


def shared(
    cosine: Float[np.ndarray, "n n"],
    signal: Float[np.ndarray, "n"],
    expected: Expected,
    labels: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "n n"]:
    """What true directions share, as parts of the energy of task vectors.

    Args:
        cosine: Of task vectors.
        signal: ρᵢ.
        expected: From all pairs.
        labels: Who belongs together.
    """
    scale = np.sqrt(np.outer(signal, signal))
    group, agreement, entries, _, _ = blocks.blocks(cosine, labels, scale)
    member = np.eye(len(agreement))[group]
    mean = member / member.sum(0)
    energy = member @ (mean.T @ signal)  # members of a group get one average
    error = np.sqrt(expected.noise / np.where(entries > 0, entries, 1.0))
    part = mean.T @ expected.chance @ mean  # of the pairs of two groups
    inside, between = (mixture.energy(mass, agreement, error) for mass in (expected.inside, expected.between))
    energies = (part * inside + (1 - part) * between)[np.ix_(group, group)]
    return np.sqrt(np.outer(energy, energy)) * np.where(group[:, None] == group, 1.0, energies)
