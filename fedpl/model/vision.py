"""Image towers (ViT, DeiT, DINOv2, CLIP, SigLIP) with a pooled head, and how they want their images."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from fedpl.errors import UserError
from fedpl.model.base import BaseModel
from fedpl.model.pretrained import check_weights, kind_of, read_weights
from fedpl.model.settings import ModelConfig
from fedpl.model.weights import resolve


class Tower(NamedTuple):
    """A family of image encoders.

    Attributes:
        name: The class of transformers.
        before: States that come before those of the patches, registers not counted.
        grows: Whether images of another size than it was trained on may come.
        options: Of its making: what leaves parts out that have no part in the states.
    """

    name: str
    before: int = 1
    grows: bool = False
    options: Mapping[str, Any] = {}


_UNPOOLED = {"add_pooling_layer": False}
_CLIP = Tower("CLIPVisionModel")
# Its own head pools by attention; PEFT could not tell it from ours.
_SIGLIP = Tower("SiglipVisionModel", 0, options={"vision_use_head": False})
TOWERS = {
    "vit": Tower("ViTModel", options=_UNPOOLED),
    "deit": Tower("DeiTModel", 2, options=_UNPOOLED),
    "dinov2": Tower("Dinov2Model", grows=True),
    "dinov2_with_registers": Tower("Dinov2WithRegistersModel", grows=True),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
}


@dataclass(frozen=True)
class Preparation:
    """How a model wants its images: transformers' own processor, by Pillow.

    The processor resizes and crops to 8-bit numbers, which are kept; the model scales them as they come.

    Args:
        processor: Of transformers.
        path: The model, for messages.
    """

    processor: Any
    path: str

    def __call__(self, image: Image.Image) -> UInt8[np.ndarray, "3 height width"]:
        """An RGB image as numbers from 0 to 255."""
        options = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
        found: np.ndarray = np.asarray(self.processor(images=[image], **options)["pixel_values"][0])
        return found.astype(np.uint8, casting="same_kind")

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width.

        Raises:
            UserError: If they depend on the image.
        """
        found = {self(Image.new("RGB", size)).shape[1:] for size in ((64, 48), (48, 64))}
        if len(found) > 1:
            raise UserError(
                f"model.path: the image processor of {self.path} gives images of different sizes; set size "
                f"(height, width) or crop_size in its preprocessor_config.json"
            )
        height, width = found.pop()
        return height, width

    @property
    def scaling(self) -> tuple[list[float], list[float]]:
        """Factor and shift of each channel, from numbers between 0 and 255 to what the model sees."""
        own = self.processor
        rescale = own.rescale_factor if own.do_rescale else 1.0
        mean, std = (own.image_mean, own.image_std) if own.do_normalize else ((0.0,) * 3, (1.0,) * 3)
        factors = [rescale / one for one in std]
        return factors, [-one / each for one, each in zip(mean, std, strict=True)]

    @property
    def key(self) -> str:
        """What decides about the numbers, as text."""
        return f"{type(self.processor).__name__} {self.processor.to_json_string()}"


class PooledImages(BaseModel):
    """An image tower, one vector for each image by pooling, and a linear head.

    Args:
        encoder: A tower.
        classes: Number of classes.
        pooling: mean over all states, or the first one (CLS).
        preparation: How images are scaled.
    """

    factors: Float[Tensor, "3 1 1"]
    shifts: Float[Tensor, "3 1 1"]

    def __init__(
        self, encoder: PreTrainedModel, classes: int, pooling: str, preparation: Preparation
    ) -> None:
        super().__init__(encoder)
        self.pooling = pooling
        self.head = nn.Linear(encoder.config.hidden_size, classes)
        for name, values in zip(("factors", "shifts"), preparation.scaling, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        # CLIP leaves its last norm to who pools.
        self._unnormed = encoder.config.model_type == "clip_vision_model"

    def forward(
        self, pixel_values: UInt8[Tensor, "rows 3 height width"], **_: Any
    ) -> Float[Tensor, "rows classes"]:
        images = pixel_values.float() * self.factors + self.shifts
        states = self.encoder(pixel_values=images).last_hidden_state
        if self._unnormed:
            states = self._norm(states)
        return self.head(states[:, 0] if self.pooling == "first" else states.mean(1))

    @property
    def _norm(self) -> nn.Module:
        """By name: whoever wraps the encoder later leaves the end of the name as it is."""
        return next(
            module for name, module in self.encoder.named_modules() if name.endswith("post_layernorm")
        )


def load_images_base(config: ModelConfig, classes: int, own_type: bool = False) -> PooledImages:
    """The frozen tower with a fresh head.

    Args:
        config: Which model.
        classes: Number of classes.
        own_type: As of `fedpl.model.base.load_base`.

    Raises:
        UserError: If there is no such model, it takes no images, or cannot be pooled as asked.
    """
    tower, kind = tower_of(config)
    if config.pooling == "last" or (config.pooling == "first" and not tower.before):
        allowed = "mean or first" if tower.before else "mean"
        raise UserError(
            f"model.pooling: {config.pooling} has no meaning for the images of {config.path} "
            f"({kind.model_type}); set it to {allowed}"
        )
    preparation = load_preparation(config)
    encoder = read_weights(config, _Made(tower), own_type)
    return PooledImages(encoder, classes, config.pooling, preparation)


@dataclass(frozen=True)
class _Made:
    """A tower's class with its options."""

    tower: Tower

    def from_pretrained(self, folder: str, **options: Any) -> PreTrainedModel:
        kind: Any = getattr(transformers, self.tower.name)
        before = logging.get_verbosity()
        logging.set_verbosity_error()  # it would warn of texts' weights and heads, which are not loaded
        try:
            found, told = kind.from_pretrained(
                folder, output_loading_info=True, **options, **self.tower.options
            )
        finally:
            logging.set_verbosity(before)
        if absent := sorted(told["missing_keys"]):  # they would be random numbers
            raise UserError(
                f"model.path: {folder} lacks {', '.join(absent[:5])}; expected a whole {self.tower.name}"
            )
        return found


def tower_of(config: ModelConfig) -> tuple[Tower, PretrainedConfig]:
    """A model's family, and the configuration of its image part.

    Raises:
        UserError: If it has none, or one of a family that is not known here.
    """
    kind = kind_of(config)
    if (tower := TOWERS.get(kind.model_type)) is None:
        raise UserError(
            f"model.path: {config.path} is of type '{kind.model_type}', which fedpl does not know as a model "
            f"of images; expected one of {', '.join(TOWERS)}, or random:vit"
        )
    return tower, getattr(kind, "vision_config", kind)


def load_preparation(config: ModelConfig) -> Preparation:
    """How a model wants its images.

    Raises:
        UserError: If its folder does not say it, or says what the model cannot take.
    """
    check_weights(config.path, config.sha256)
    try:
        # By name: where torchvision is installed another one would be taken, whose resizing differs.
        processor = AutoImageProcessor.from_pretrained(resolve(config.path), backend="pil")
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"model.path: {config.path} has no image processor (preprocessor_config.json) that Pillow can "
            f"do: {' '.join(str(error).split())[:200]}"
        ) from error
    found = Preparation(processor, config.path)
    tower, kind = tower_of(config)
    wanted = getattr(kind, "image_size", None)
    sides = tuple(wanted) if isinstance(wanted, list | tuple) else (wanted, wanted)
    if not tower.grows and found.size != sides:
        raise UserError(
            f"model.path: the image processor of {config.path} gives images of "
            f"{' × '.join(map(str, found.size))} pixels, and the model takes {' × '.join(map(str, sides))}; "
            f"mend its preprocessor_config.json"
        )
    return found


def states_of(config: ModelConfig, size: tuple[int, int]) -> int:
    """How many states a model has for an image: one for each patch and those before them.

    Args:
        config: Which model.
        size: Height and width of what it is given.
    """
    tower, kind = tower_of(config)
    patch: Any = getattr(kind, "patch_size")  # noqa: B009 - each family's configuration has its own
    patches = patch if isinstance(patch, list | tuple) else (patch, patch)
    number = (size[0] // patches[0]) * (size[1] // patches[1])
    return number + tower.before + int(getattr(kind, "num_register_tokens", 0))
