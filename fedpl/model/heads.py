"""How AutoModelForSequenceClassification of an architecture answers, and fedpl's head written in its terms.

Most architectures put a layer and an activation f between the pooled state and the classes. Near 0 every such
f has f(z) − f(−z) = g · z (exactly for ReLU and GELU, to float32's rounding for tanh), so W x + b is
[I, −I] f(ε [W; −W] x + ε [b; −b]) / (ε g): the same function, in layers that PEFT can save.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, PretrainedConfig
from transformers.modeling_layers import GenericForSequenceClassification

# A power of two: scaling by it is exact. Answers stay exact in float32 and bfloat16, not in float16.
_NEAR_ZERO = 2.0**-20


@dataclass(frozen=True)
class OwnHead:
    """The head of an architecture's own classifier.

    Attributes:
        pooling: Which token it reads.
        out: Its last linear layer.
        dense: The linear layer before the activation; empty: there is none, and `out` has no bias.
        gain: g, see above.
        saved: Modules that PEFT has to save.
    """

    pooling: str
    out: str
    dense: str = ""
    gain: float = 1.0
    saved: tuple[str, ...] = ("classifier",)


_LAST = OwnHead("last", "score", saved=("score",))
_TANH, _GELU = (OwnHead("first", "classifier.out_proj", "classifier.dense", gain) for gain in (2.0, 1.0))
_POOLER = ("pooler", "classifier")
_HEADS: Mapping[str, OwnHead] = {
    "albert": OwnHead("first", "classifier", "albert.pooler", 2.0, _POOLER),
    "bert": OwnHead("first", "classifier", "bert.pooler.dense", 2.0, _POOLER),
    "deberta-v2": OwnHead("first", "classifier", "pooler.dense", 1.0, _POOLER),
    "distilbert": OwnHead("first", "classifier", "pre_classifier", 1.0, ("pre_classifier", "classifier")),
    "electra": _GELU,
    "gpt2": _LAST,
    "mpnet": _TANH,
    "roberta": _TANH,
    "xlm-roberta": _TANH,
}


def own_head(config: PretrainedConfig, pooling: str) -> OwnHead | None:
    """The head of the architecture's own classifier; None where it can give no linear head on this pooling.

    Args:
        config: The model's.
        pooling: mean, first or last.
    """
    generic = issubclass(classifier(config), GenericForSequenceClassification)
    head = _LAST if generic else _HEADS.get(config.model_type)
    return head if head is not None and head.pooling == pooling else None


def classifier(config: PretrainedConfig) -> type:
    """What AutoModelForSequenceClassification makes of a configuration; `object` where there is nothing."""
    found = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), object)
    return found if isinstance(found, type) else object


def expressed(
    head: OwnHead, weight: Float[Tensor, "classes features"], bias: Float[Tensor, "classes"] | None
) -> dict[str, Tensor] | None:
    """W x + b as the tensors of an architecture's own head, by name; None where it has no room for them.

    Args:
        head: Where they go.
        weight: W.
        bias: b.
    """
    if not head.dense:
        return {f"{head.out}.weight": weight} if bias is None else None
    classes, features = weight.shape
    if 2 * classes > features:
        return None
    inner = weight.new_zeros(features, features)
    inner[: 2 * classes] = _NEAR_ZERO * torch.cat([weight, -weight])
    shift = weight.new_zeros(features)
    if bias is not None:
        shift[: 2 * classes] = _NEAR_ZERO * torch.cat([bias, -bias])
    outer = weight.new_zeros(classes, features)
    signs = torch.cat([torch.eye(classes), -torch.eye(classes)], dim=1).to(weight)
    outer[:, : 2 * classes] = signs / (_NEAR_ZERO * head.gain)
    return {
        f"{head.dense}.weight": inner,
        f"{head.dense}.bias": shift,
        f"{head.out}.weight": outer,
        f"{head.out}.bias": weight.new_zeros(classes),
    }
