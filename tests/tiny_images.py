"""Images made up of a colour for each class, and random towers of every family, with their processors."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

SIDE = 16
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": 8,
}
COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200)}


def image(stream: np.random.Generator, colour: tuple[int, int, int], size: tuple[int, int]) -> Image.Image:
    noise = stream.integers(-40, 40, (size[1], size[0], 3))
    return Image.fromarray((np.array(colour) + noise).astype(np.uint8))


def encoded(picture: Image.Image, format: str = "png") -> bytes:
    file = io.BytesIO()
    picture.save(file, format)
    return file.getvalue()


def made(clients: tuple[str, ...] = ("art", "photo", "sketch"), each: int = 7) -> dict[str, bytes]:
    """Files by path; the images have different sizes."""
    stream = np.random.default_rng(0)
    return {
        f"{client}/{label}/{i}.png": encoded(image(stream, colour, (18 + i, 20)))
        for client in clients
        for label, colour in COLOURS.items()
        for i in range(each)
    }


def zipped(path: Path, files: dict[str, bytes], top: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            file.writestr(top + name, content)
    return path


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tower(folder: Path, family: str) -> Path:
    """A random model of a family, as its authors would hand it over."""
    size = {"height": SIDE, "width": SIDE}
    crop = {"size": {"shortest_edge": SIDE}, "crop_size": size}
    vision = getattr(
        transformers, {"clip": "CLIPVisionConfig", "siglip": "SiglipVisionConfig"}.get(family, "ViTConfig")
    )
    text = {**SHAPE, "vocab_size": 8, "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        match family:
            case "clip":
                config: Any = transformers.CLIPConfig(
                    text_config=text, vision_config=vision(**SHAPE).to_dict()
                )
                model, processor = transformers.CLIPModel(config), transformers.CLIPImageProcessorPil(**crop)
            case "siglip":
                config = transformers.SiglipConfig(text_config=text, vision_config=vision(**SHAPE).to_dict())
                model, processor = (
                    transformers.SiglipModel(config),
                    transformers.SiglipImageProcessorPil(size=size),
                )
            case "dinov2":
                model = transformers.Dinov2Model(transformers.Dinov2Config(**SHAPE))
                processor = transformers.BitImageProcessorPil(**crop)
            case "dinov2_with_registers":
                model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**SHAPE))
                processor = transformers.BitImageProcessorPil(**crop)
            case "deit":
                model = transformers.DeiTModel(transformers.DeiTConfig(**SHAPE))
                processor = transformers.DeiTImageProcessorPil(**crop)
            case _:
                config = vision(**SHAPE)
                model, processor = (
                    transformers.ViTForImageClassification(config),
                    transformers.ViTImageProcessorPil(size=size),
                )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
