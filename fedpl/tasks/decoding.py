"""How a language model writes an answer: settings. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DecodingConfig:
    """How answers are written, token by token.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        beams: Answers that are followed at once, of which the likeliest is given; 1 follows one.
        temperature: Of drawn tokens; 0 takes the likeliest one.
        top_p: Tokens are drawn among the likeliest ones that have this share together; 1: among all.
        top_k: Tokens are drawn among so many likeliest ones; 0: among all.
        stop: Texts at which an answer ends; they are not a part of it. The model's own end always ends it.
        rows: Most answers, of all clients, that are written at once; beams count as answers.
    """

    max_new_tokens: int = 64
    beams: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    rows: int = 32

    def problems(self, name: str = "decoding") -> Sequence[str]:
        """What is wrong with the settings, one line each.

        Args:
            name: Where the settings stand, for the messages.
        """
        drawn = self.temperature > 0
        checks = (
            (self.max_new_tokens >= 1, f"max_new_tokens: at least 1, got {self.max_new_tokens}"),
            (self.beams >= 1, f"beams: at least 1, got {self.beams}"),
            (self.temperature >= 0, f"temperature: must not be negative, got {self.temperature}"),
            (0 < self.top_p <= 1, f"top_p: must lie above 0 and at most at 1, got {self.top_p}"),
            (self.top_k >= 0, f"top_k: must not be negative, got {self.top_k}"),
            ("" not in self.stop, "stop: a text that is empty would end every answer at once; leave it out"),
            (self.rows >= self.beams, f"rows: at least as many as beams ({self.beams}), got {self.rows}"),
            (
                self.beams == 1 or not drawn,
                f"beams: {self.beams} follow the likeliest tokens and draw none; set temperature to 0, or "
                f"beams to 1",
            ),
            (
                drawn or (self.top_p == 1 and self.top_k == 0),
                "top_p, top_k: nothing is drawn at temperature 0; set a temperature, or leave them out",
            ),
        )
        return [f"{name}.{what}" for holds, what in checks if not holds]
