"""Adapters on disk, as plain PEFT loads them: for the architecture's own classifier, or for its encoder.

Where `fedpl.model.heads` can write the head in the architecture's own terms, the folder is an adapter of
AutoModelForSequenceClassification, head included. Else it is one of AutoModel, exact too, and the head lies
beside it in ``head.safetensors``, which `fedpl.load` puts on the pooled states. So are those of image towers.
Language models have no head: their adapters are those of AutoModelForCausalLM.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from safetensors.torch import save
from torch import Tensor, nn

from fedpl.files import write_atomically
from fedpl.model.adapter import ADAPTER
from fedpl.model.base import HEAD, PooledClassifier
from fedpl.model.heads import classifier, expressed, own_head
from fedpl.model.language import LanguageModel
from fedpl.model.merged import merged
from fedpl.model.vision import PooledImages
from fedpl.records.card import HEAD_FILE
from fedpl.records.layout import AdapterLayout

_NEVER = -1e4  # within float16; written in BERT's terms (`expressed`) it leaves the others' digits alone
_ENCODER, _A = "encoder.", ".lora_A.weight"


def save_adapter(
    vector: Float[Tensor, "params"],
    model: PeftModel,
    layout: AdapterLayout,
    folder: Path,
    residual: Float[Tensor, "weights"] | None = None,
    classes: Sequence[int] | None = None,
) -> None:
    """Write a flat vector as a PEFT adapter; the same bytes in every process.

    Args:
        vector: The adapter.
        model: The PEFT model it belongs to, for its structure.
        layout: The adapter's layout.
        folder: Where to write; made if need be.
        residual: What is added to the frozen weights, which becomes part of the adapter; see `merged`.
        classes: Those that its client can answer; None: all. The others get a bias that no answer outweighs,
            so that whoever loads the adapter gets the answers that were scored.
    """
    tensors = {e.name: vector[e.start : e.stop].view(e.shape).float().cpu() for e in layout.entries}
    config: Any = copy.deepcopy(model.peft_config[ADAPTER])
    if residual is not None:
        tensors, rank = merged(tensors, residual, layout)
        config.r, config.lora_alpha = rank, layout.scale * rank
    inner = {n.removeprefix(_ENCODER): t for n, t in tensors.items() if n.startswith(_ENCODER)}
    outer = {n: t for n, t in tensors.items() if not n.startswith(_ENCODER)}
    if classes is not None:
        outer[f"{HEAD}.bias"] = _without(outer, classes)
    base: Any = model.get_base_model()
    own = _in_own_terms(base, outer)
    config.task_type, config.modules_to_save = "FEATURE_EXTRACTION", None
    if isinstance(base, PooledImages):
        config.task_type = None  # PEFT's models for features hand on what texts have
    elif isinstance(base, LanguageModel):
        config.task_type = "CAUSAL_LM"
    elif own is not None:
        outer, saved = own
        prefix = f"{classifier(base.config).base_model_prefix}."  # type: ignore[attr-defined]
        # The encoder's own pooler has no part in the states that are pooled here.
        inner = {prefix + n: t for n, t in inner.items() if not n.startswith("pooler.")}
        config.task_type, config.modules_to_save = "SEQ_CLS", list(saved)
        inner, outer = inner | outer, {}
    # Whole names: they match the same layers whatever stands around them. Sorted: a set has no order.
    config.target_modules = sorted(n.removesuffix(_A) for n in inner if n.endswith(_A))
    config.layers_to_transform, config.inference_mode, config.auto_mapping = None, True, None
    folder.mkdir(exist_ok=True)
    config.save_pretrained(str(folder))
    _write(folder / "adapter_model.safetensors", {f"base_model.model.{n}": t for n, t in inner.items()})
    (folder / HEAD_FILE).unlink(missing_ok=True)
    if outer:
        _write(folder / HEAD_FILE, outer)


def _without(head: Mapping[str, Tensor], classes: Sequence[int]) -> Float[Tensor, "classes"]:
    """A head's bias that keeps all but these classes out of the answers; also where it had none."""
    bias = head.get(f"{HEAD}.bias", torch.zeros(len(head[f"{HEAD}.weight"])))
    found = torch.full_like(bias, _NEVER)
    found[list(classes)] = bias[list(classes)]
    return found


def _in_own_terms(
    base: nn.Module, head: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]] | None:
    """The head as tensors of the architecture's own classifier, and which modules they fill; None: no way."""
    names = {f"{HEAD}.weight"} | ({f"{HEAD}.bias"} & head.keys())
    if type(base) is not PooledClassifier or head.keys() != names:
        return None
    if type(getattr(base.head, "original_module", base.head)) is not nn.Linear:
        return None
    own = own_head(base.config, base.pooling)
    tensors = None if own is None else expressed(own, head[f"{HEAD}.weight"], head.get(f"{HEAD}.bias"))
    return None if own is None or tensors is None else (tensors, own.saved)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    write_atomically(path, save({n: t.contiguous() for n, t in tensors.items()}, metadata={"format": "pt"}))
