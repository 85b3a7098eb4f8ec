"""Image classification: one label an image, the pooled states of an image tower, a linear head."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fedpl.data import FederatedData, Images, Split
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.tasks.classification import Classification

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fedpl.model import vision
    from fedpl.tasks import examples, pixels
else:
    np, torch, vision, pixels = map(deferred, ("numpy", "torch", "fedpl.model.vision", "fedpl.tasks.pixels"))


@dataclass(frozen=True)
class ImageClassification(Classification):
    """One of several classes for each image."""

    pictured: ClassVar[bool] = True

    def take(self, data: FederatedData) -> FederatedData:
        if not all(isinstance(client.train, Images) for client in data.clients):
            raise UserError(
                f"task: {type(self).__name__} learns images, and the data have none; set --data "
                f"fedpl.data.ImageFolder, or name data.columns.image"
            )
        return data

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "vision.PooledImages":
        return vision.load_images_base(model, len(classes), True)

    def encoder(self, model: ModelConfig) -> "Callable[..., examples.Examples]":
        preparation = vision.load_preparation(model)
        states = vision.states_of(model, preparation.size)
        kept = pixels.Pixels(preparation)

        def encode(split: Split, scored: bool = False) -> "examples.Examples":
            targets = torch.tensor(split.labels, dtype=torch.long)
            pictures = split.pictures if isinstance(split, Images) else ()
            if all(picture.lasting for picture in pictures):
                return pixels.Pictures(kept, kept.slots(pictures), targets, states)
            held = pixels.Held(kept.decoded(pictures))
            return pixels.Pictures(held, np.arange(len(pictures)), targets, states)

        return encode
