"""Which layers of a model are adapted, and that they are there before anything is made of them."""

import copy
from typing import Any

import peft
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers import PreTrainedModel

from fedpl.errors import UserError

_QUERY_AND_VALUE = (
    *(("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("q", "v")),
    *(("qkv_proj",), ("c_attn",), ("Wqkv",)),
)


def default_targets(encoder: PreTrainedModel) -> tuple[str, ...]:
    """PEFT's choice for the model type, else the usual names of query and value projections."""
    kind = encoder.config.model_type
    known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
    if known:
        return (known,) if isinstance(known, str) else tuple(known)
    endings = {name.rsplit(".", 1)[-1] for name, _ in encoder.named_modules()}
    for pair in _QUERY_AND_VALUE:
        if endings.issuperset(pair):
            return pair
    raise UserError(
        f"lora.target_modules: fedpl knows no default for model type '{kind}'; name the layers, among "
        f"{', '.join(sorted(endings))}"
    )


def check_targets(encoder: PreTrainedModel, config: peft.LoraConfig, path: str) -> None:
    """Refuse targets that are not there, and a rank that one of them does not have.

    Raises:
        UserError: Naming the option that is to blame.
    """

    def matching(layers: list[int] | None) -> list[str]:
        asked = copy.copy(config)
        asked.layers_to_transform = layers
        names = [name for name, _ in encoder.named_modules()]
        # PEFT looks for a block's number behind a name: it sees the encoder as a part of our model.
        return [name for name in names if check_target_module_exists(asked, f"encoder.{name}")]

    targets: Any = config.target_modules
    blocks: Any = config.layers_to_transform
    if not matching(None):
        there = {name.rsplit(".", 1)[-1] for name, m in encoder.named_modules() if hasattr(m, "weight")}
        raise UserError(
            f"lora.target_modules: no layer of {path} matches {', '.join(sorted(targets))}; its layers end "
            f"in {', '.join(sorted(there))}"
        )
    output = encoder.get_output_embeddings()
    if output is not None and any(encoder.get_submodule(name) is output for name in matching(blocks)):
        raise UserError(
            f"lora.target_modules: the output layer of {path} is among them, which stays frozen; leave it out"
        )
    absent = [block for block in blocks or () if not matching([block])]
    if absent:
        raise UserError(
            f"lora.layers_to_transform: {path} has no block {', '.join(map(str, absent))} with "
            f"{', '.join(sorted(targets))}; its {encoder.config.num_hidden_layers} blocks count from 0"
        )
    for name in matching(blocks):
        layer = encoder.get_submodule(name)
        shape = tuple(getattr(getattr(layer, "weight", None), "shape", ()))
        if isinstance(layer, nn.Linear):
            shape = layer.out_features, layer.in_features  # packed weights have another shape
        if len(shape) == 2 and config.r > min(shape):
            told = " × ".join(map(str, shape))
            raise UserError(
                f"lora.r: {config.r} is more than the smaller side of {name} ({told}), above which a rank "
                f"adds nothing; set --lora.r {min(shape)} or less"
            )
