"""A client's model to take away: its adapter, or the frozen model with the adapter merged into it."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from fedpl.errors import UserError
from fedpl.files import quoted, write_atomically, writing
from fedpl.model.pretrained import load_tokenizer
from fedpl.model.vision import load_preparation
from fedpl.records.card import CAUSAL, CLASSIFIER, ENCODER, HEAD_FILE, Card
from fedpl.runs.adapters import ClientModel, Served, load, located, model_settings


def export(
    run: Path,
    client: str,
    out: Path | None = None,
    merge: bool = False,
    personal: bool = False,
    newcomer: bool = False,
    base: str | None = None,
    model: Served = "aggregated",
) -> Path:
    """Write a client's model into a folder of its own.

    Args:
        run: The run directory.
        client: Whose.
        out: Where to; it is absent or empty. None: ``exports/CLIENT`` in the run, with
            ``-best`` and ``-merged`` behind it where it is that.
        merge: Write the whole model with the adapter in its weights, in float32, and its tokenizer; else the
            adapter alone, as it lies in the run.
        personal: As of `fedpl.load`; likewise newcomer and base.
        newcomer: Whether it is one that joined when the run had ended.
        base: Where the frozen model lies now.
        model: As of `fedpl.load`.

    Returns:
        The folder.

    Raises:
        UserError: As of `fedpl.load`, if the folder holds something, or weights are packed and cannot be
            merged.
    """
    folder, card = located(run, client, personal, base, newcomer, model)
    if merge and card.quantized is not None:
        raise UserError(
            f"--merge: the frozen weights are packed in {card.quantized}, which takes no adapter without "
            f"another loss of precision; export the adapter alone"
        )
    out = out or run / "exports" / (quoted(client) + "-best" * (model == "best") + "-merged" * merge)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} holds something already; name a new or empty folder")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        if merge:
            found = load(run, client, personal, card.base, newcomer, model=model)
            _merge(found, folder, card, out)
        else:
            shutil.copytree(folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("personal"))
    return out


def _merge(found: ClientModel, folder: Path, card: Card, out: Path) -> None:
    model: Any = found.model
    merged = model.merge_and_unload()
    merged.save_pretrained(str(out))
    settings = model_settings(card, card.base)
    inputs = load_preparation(settings).processor if card.images else load_tokenizer(settings)
    inputs.save_pretrained(str(out))
    if found.head is not None:
        shutil.copyfile(folder / HEAD_FILE, out / HEAD_FILE)
    card.write(out)
    write_atomically(out / "README.md", _page(card).encode())


def _page(card: Card) -> str:
    head = {"library_name": "transformers", "base_model": card.base, "tags": ["fedpl"]}
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# Model of client {card.client}",
        "",
        f"`{card.base}` (weights with SHA-256 `{card.base_sha256}`) with the adapter of one client of a "
        f"federation merged into its weights, after round {card.round} of `{card.method}`; `fedpl.json` says "
        f"what the adapter was. transformers alone loads it (in this folder):",
        "",
        "```python",
        *_code(card).splitlines(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _code(card: Card) -> str:
    if card.images:
        norm = "model.post_layernorm" if card.loads_as == "CLIPVisionModel" else ""
        found = _IMAGES.replace("TOWER", card.loads_as).replace("NORM", norm)
        return found.replace("POOLED", "states[:, 0]" if card.pooling == "first" else "states.mean(1)")
    found = _CODE[card.loads_as].replace("POOLED", _POOLED[card.pooling])
    return found.replace("LENGTH", str(card.max_length))


_POOLED = {
    "mean": "(states * mask).sum(1) / mask.sum(1)",
    "first": "states[:, 0]",
    "last": "states[range(len(states)), tokens['attention_mask'].sum(1) - 1]",
}
_CODE = {
    CLASSIFIER: """from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", padding_side="right")
model = AutoModelForSequenceClassification.from_pretrained(".").eval()
cut = {"truncation": True, "max_length": LENGTH}
tokens = tokenizer(["a text"], padding=True, return_tensors="pt", **cut)
logits = model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits""",
    CAUSAL: """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".")
model = AutoModelForCausalLM.from_pretrained(".").eval()""",
    # The architecture's own classifier has another pooling or head.
    ENCODER: """import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(".", padding_side="right")
model, head = AutoModel.from_pretrained(".").eval(), load_file("head.safetensors")
cut = {"truncation": True, "max_length": LENGTH}
tokens = tokenizer(["a text"], padding=True, return_tensors="pt", **cut)
tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
states, mask = model(**tokens).last_hidden_state, tokens["attention_mask"].unsqueeze(-1)
pooled = POOLED
logits = torch.nn.functional.linear(pooled, head["head.weight"], head.get("head.bias"))""",
}
_IMAGES = """import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoImageProcessor, TOWER

processor = AutoImageProcessor.from_pretrained(".", backend="pil")
model, head = TOWER.from_pretrained(".").eval(), load_file("head.safetensors")
images = processor([Image.open("image.jpg").convert("RGB")], return_tensors="pt")
states = NORM(model(**images).last_hidden_state)
logits = torch.nn.functional.linear(POOLED, head["head.weight"], head["head.bias"])"""
