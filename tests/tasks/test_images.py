"""Images on their way to the model: as the processor makes them, decoded once, kept in one mapped file."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from fedpl.data import FederatedData, ImageFolder
from fedpl.data.pictures import asked, known
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.model.targets import default_targets
from fedpl.model.vision import load_images_base, load_preparation, states_of
from fedpl.tasks import Classification, ImageClassification, pixels
from tests import tiny_images

pytestmark = pytest.mark.usefixtures("image_cache")


@pytest.fixture
def data(tmp_path: Path) -> FederatedData:
    return ImageFolder(path=str(tiny_images.zipped(tmp_path / "a.zip", tiny_images.made()))).load(0)


@pytest.mark.parametrize("family", ["vit", "deit", "clip", "siglip", "dinov2", "dinov2_with_registers"])
def test_the_model_sees_what_the_processor_gives(tmp_path: Path, family: str) -> None:
    """Numbers of 8 bits, scaled by the model, against transformers' own floats."""
    config = ModelConfig(path=str(tiny_images.tower(tmp_path / "model", family)))
    image = tiny_images.image(np.random.default_rng(1), (90, 120, 30), (40, 23))
    right = AutoImageProcessor.from_pretrained(config.path, backend="pil")([image], return_tensors="pt")
    base = load_images_base(config, 2).eval()
    seen = torch.from_numpy(load_preparation(config)(image))[None]
    got: list[torch.Tensor] = []
    base.encoder.register_forward_pre_hook(
        lambda _, args, options: got.append(options["pixel_values"]), with_kwargs=True
    )
    base.encoder.register_forward_hook(lambda module, args, out: got.append(out.last_hidden_state))
    base(pixel_values=seen)
    torch.testing.assert_close(got[0], right["pixel_values"], atol=2e-6, rtol=1e-6)
    assert states_of(config, (16, 16)) == got[1].shape[1]
    assert set(default_targets(base.encoder)) == {"q_proj", "v_proj"}


def test_clip_is_pooled_through_its_last_norm(tmp_path: Path) -> None:
    config = ModelConfig(path=str(tiny_images.tower(tmp_path / "model", "clip")), pooling="first")
    base = load_images_base(config, 2).eval()
    base.head = torch.nn.Identity()
    images = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)
    own = base.encoder(pixel_values=images.float() * base.factors + base.shifts).pooler_output
    torch.testing.assert_close(base(pixel_values=images), own)


def test_images_are_decoded_once_and_mapped(
    tmp_path: Path, data: FederatedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(path=str(tiny_images.tower(tmp_path / "model", "vit")))
    times: list[str] = []
    decoded = pixels.decoded
    monkeypatch.setattr(pixels, "decoded", lambda picture: times.append(picture.name) or decoded(picture))
    for _ in range(2):  # the second time as another process would
        encode = ImageClassification().encoder(config)
        splits = [encode(getattr(client, split)) for client in data.clients for split in ("train", "test")]
        assert len({id(own.pixels) for own in splits}) == 1, "no copies by client"
        assert isinstance(splits[0].pixels.mapped, np.memmap)
        assert not splits[0].pixels.mapped.flags.writeable
    assert len(times) == len(set(times)) == sum(map(len, splits))
    picture = data.clients[0].train.pictures[0]
    (seen,) = splits[0].collate([0]).inputs["pixel_values"]
    assert np.array_equal(seen, load_preparation(config)(decoded(picture)))
    # What was cut off behind the last whole image goes.
    folder = splits[0].pixels.folder
    for name in ("pixels", "index"):
        with (folder / name).open("ab") as file:
            file.write(b"half")
    more = tuple(map(known, asked([tiny_images.encoded(Image.new("RGB", (9, 9), "green"))])))
    kept = pixels.Pixels(load_preparation(config))
    (slot,) = kept.slots(more)
    assert kept.mapped[slot][:, 0, 0].tolist() == [0, 128, 0]
    assert (folder / "pixels").stat().st_size == len(kept.mapped) * 3 * 16 * 16
    shutil.rmtree(folder)


def test_what_does_not_go_together_is_refused(tmp_path: Path, data: FederatedData, small_model: Path) -> None:
    task, vit = ImageClassification(), tiny_images.tower(tmp_path / "vit", "vit")
    with pytest.raises(UserError, match=r"set --task fedpl\.tasks\.ImageClassification"):
        Classification().take(data)
    with pytest.raises(UserError, match="is of type 'bert', which fedpl does not know as a model of images"):
        task.base(ModelConfig(path=str(small_model)), ("a", "b"))
    with pytest.raises(UserError, match=r"pooling: last has no meaning .* set it to mean or first"):
        task.base(ModelConfig(path=str(vit), pooling="last"), ("a", "b"))
    with pytest.raises(UserError, match="there is random:vit alone"):
        task.base(ModelConfig(path="random:clip"), ("a", "b"))
    settings = vit / "preprocessor_config.json"
    settings.write_text(settings.read_text().replace("16", "24"))
    with pytest.raises(UserError, match="gives images of 24 × 24 pixels, and the model takes 16 × 16"):
        task.encoder(ModelConfig(path=str(vit)))
    settings.unlink()
    with pytest.raises(UserError, match="has no image processor"):
        task.encoder(ModelConfig(path=str(vit)))
