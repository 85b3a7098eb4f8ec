"""The frozen foundation model with a classification head, and its trainable adapter by PEFT."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import peft
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.pytorch_utils import Conv1D

from fedpl.errors import UserError
from fedpl.model.heads import own_head
from fedpl.model.pretrained import kind_of, read_weights
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.model.targets import check_targets, default_targets
from fedpl.model.weights import resolve

HEAD = "head"
_NARROW = (torch.bfloat16, torch.float16)


class BaseModel(nn.Module):
    """A frozen model: layers of its `encoder` are adapted, its `head` sees one vector for each row.

    Args:
        encoder: Any Hugging Face model.
    """

    head: nn.Module
    base_model_prefix = "encoder"  # PEFT asks for it where names of weights have changed between versions

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's configuration, where PEFT looks for the model's type."""
        return self.encoder.config


class PooledClassifier(BaseModel):
    """A transformer encoder, one vector per text by pooling, and a linear head.

    The head has a bias, but for decoders pooled at the last token, whose classifiers have none.

    Args:
        encoder: Any Hugging Face model with ``last_hidden_state``.
        classes: Number of classes.
        pooling: mean over real tokens, first or last real token.
    """

    def __init__(self, encoder: PreTrainedModel, classes: int, pooling: str) -> None:
        super().__init__(encoder)
        self.pooling = pooling
        # A head that the architecture's own classifier can take over has a bias only where that one has.
        own = own_head(encoder.config, pooling)
        bias = own is None or bool(own.dense)
        self.head = nn.Linear(encoder.config.hidden_size, classes, bias)

    def forward(
        self,
        input_ids: Int[Tensor, "batch length"],
        attention_mask: Int[Tensor, "batch length"],
        token_type_ids: Int[Tensor, "batch length"] | None = None,
        **_: Any,
    ) -> Float[Tensor, "batch classes"]:
        pair = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **pair).last_hidden_state
        mask = attention_mask.to(states.dtype).unsqueeze(-1)
        match self.pooling:
            case "mean":
                pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            case "first":
                pooled = states[:, 0]
            case _:
                last = attention_mask.sum(1) - 1
                pooled = states[torch.arange(len(states), device=states.device), last]
        return self.head(pooled)


def load_base(config: ModelConfig, classes: int, own_type: bool = False) -> PooledClassifier:
    """The frozen model with a fresh head, as an adapter written by a run expects it.

    Args:
        config: Which model.
        classes: Number of classes.
        own_type: Whether weights stay in the type of their file, until `Foundation` knows the arithmetic;
            else they are float32.

    Raises:
        UserError: If there is no such model, its weights are not the pinned ones, it cannot be pooled, or it
            has no room for texts of model.max_length.
    """
    kind = kind_of(config)
    if kind.is_encoder_decoder:
        raise UserError(
            f"model.path: {config.path} is an encoder-decoder ({kind.model_type}), which gives no states "
            f"of a text alone; choose an encoder (BERT, ...) or a decoder (GPT-2, Llama, ...)"
        )
    return PooledClassifier(read_weights(config, AutoModel, own_type), classes, config.pooling)


def add_adapter(base: BaseModel, settings: LoraSettings, path: str, seed: int) -> peft.PeftModel:
    """Freeze the model and place LoRA and, if the model has one, a trainable head, drawn from the seed alone.

    Args:
        base: The model; it is changed in place.
        settings: Rank, scale, targets.
        path: The model's name, recorded in the adapter's configuration.
        seed: Seed of θ₀, the same for all clients.

    Raises:
        UserError: If no layer matches the targets, or one is smaller than the rank.
    """
    config = peft.LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules or default_targets(base.encoder)),
        layers_to_transform=None
        if settings.layers_to_transform is None
        else list(settings.layers_to_transform),
        modules_to_save=[HEAD] if isinstance(base.head, nn.Linear) else None,
    )
    # Before PEFT makes them: a rank far too high would fill the memory first.
    check_targets(base.encoder, config, path)
    with torch.random.fork_rng(), _drawn_in_float32(base):
        torch.manual_seed(seed)
        if isinstance(base.head, nn.Linear):
            base.head.reset_parameters()
        try:
            model = peft.get_peft_model(base, config)
        except ValueError as error:
            raise UserError(f"lora.target_modules: {' '.join(str(error).split())}") from error
    # PEFT takes the name from the model it wraps, which is ours and has none.
    model.peft_config["default"].base_model_name_or_path = resolve(path)
    return model


@contextmanager
def _drawn_in_float32(base: nn.Module) -> Iterator[None]:
    """Within it narrow layers look like float32 ones, to whose type PEFT would round the θ₀ that it draws."""
    kept = [
        (module, module.weight)
        for module in base.modules()
        if isinstance(module, nn.Linear | Conv1D) and module.weight.dtype in _NARROW
    ]
    for module, weight in kept:
        shape = torch.empty(1, device=weight.device).expand(weight.shape)  # one number
        module.weight = nn.Parameter(shape, requires_grad=False)
    try:
        yield
    finally:
        for module, weight in kept:
            module.weight = weight.requires_grad_(False)


def halve_frozen(model: peft.PeftModel) -> None:
    """Keep the frozen linear layers in bfloat16: what autocast makes of them in every pass, made once.

    Layers that come in another type get weights of their own, so a model that shares the old ones keeps them;
    those that come in bfloat16 are left as they are. Embeddings that come in bfloat16 stay too, and give
    their vectors as float32. Everything else is float32: norms, which autocast leaves alone, and what is
    trained.

    Args:
        model: The PEFT model; from here on it computes under bfloat16 autocast only.
    """
    for module in model.get_base_model().get_submodule("encoder").modules():
        if type(module) is nn.Embedding and module.weight.dtype == torch.bfloat16:
            module.register_forward_hook(_in_float32)
            continue
        if hasattr(module, "compute_dtype"):
            setattr(module, "compute_dtype", torch.bfloat16)  # noqa: B010 - of weights that stay in 4 bits
        linear = isinstance(module, nn.Linear | Conv1D) and not module.weight.requires_grad
        dtype = torch.bfloat16 if linear else torch.float32
        for name, tensor in list(module.named_parameters(recurse=False)):
            if tensor.dtype != dtype and tensor.is_floating_point():
                setattr(
                    module, name, nn.Parameter(tensor.detach().to(dtype), requires_grad=tensor.requires_grad)
                )


def _in_float32(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output.float()
