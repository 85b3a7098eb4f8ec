"""A frozen causal language model, which says how likely the answers in its rows are."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    PreTrainedModel,
)

from fedpl.errors import UserError
from fedpl.model.base import BaseModel
from fedpl.model.pretrained import kind_of, read_weights
from fedpl.model.settings import ModelConfig


class LanguageModel(BaseModel):
    """Log-probability of the learned tokens of each row; the vocabulary is looked at for these alone.

    Everything between states and logits is the model's own (its output layer, scaling, soft caps): the output
    layer is given the states before the learned tokens in place of all.

    Args:
        encoder: Any Hugging Face model for causal language modelling.

    Attributes:
        head: Gives back what it is given: each row's state before its last answer, for those who look there.
    """

    def __init__(self, encoder: PreTrainedModel) -> None:
        super().__init__(encoder)
        self.head = nn.Identity()

    def forward(
        self,
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        learned: Bool[Tensor, "rows length"],
        **_: Any,
    ) -> Float[Tensor, "rows"]:
        """Σ log p(token | those before it) over each row's learned tokens; a row's first one is never one."""
        wanted = learned[:, 1:]

        def select(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            (states,) = inputs
            begins = wanted & ~learned[:, :-1]
            last = (begins * torch.arange(begins.shape[1], device=begins.device)).argmax(1)
            self.head(states[torch.arange(len(states), device=states.device), last])
            return (states[:, :-1][wanted][None],)

        hook = self.encoder.get_output_embeddings().register_forward_pre_hook(select)
        try:
            output = self.encoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        finally:
            hook.remove()
        found = -F.cross_entropy(output.logits[0].float(), input_ids[:, 1:][wanted], reduction="none")
        # By position, not by an index that repeats: sums are taken in the same order on every device.
        return found.new_zeros(wanted.shape).masked_scatter(wanted, found).sum(1)


def load_language_model(config: ModelConfig, own_type: bool = False) -> LanguageModel:
    """The frozen model, as an adapter written by a run expects it.

    Args:
        config: Which model.
        own_type: As of `fedpl.model.base.load_base`.

    Raises:
        UserError: If there is no such model, it is no causal language model, its weights are not the pinned
            ones, or it has too few positions.
    """
    kind = kind_of(config)
    sees_all = type(kind) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(kind, "is_decoder", False)
    if type(kind) not in MODEL_FOR_CAUSAL_LM_MAPPING or kind.is_encoder_decoder or sees_all:
        raise UserError(
            f"model.path: {config.path} is no causal language model ({kind.model_type}), which tasks with "
            f"answers in words need; choose one (SmolLM2, Llama, Qwen, GPT-2, ...)"
        )
    encoder = read_weights(config, AutoModelForCausalLM, own_type)
    if encoder.get_output_embeddings() is None:
        raise UserError(
            f"model.path: {config.path} ({kind.model_type}) does not say which is its output layer"
        )
    return LanguageModel(encoder)
