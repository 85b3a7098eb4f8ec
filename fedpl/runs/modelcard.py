"""What the model card of an adapter says: whose it is, what it is made of, how it is loaded."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from fedpl.records.card import CAUSAL, CLASSIFIER, ENCODER, Card
from fedpl.records.choice import FOLDER
from fedpl.records.scores import Metric
from fedpl.tasks import templates


def page(card: Card, metrics: Sequence[Metric], run: Path, template: str = "") -> str:
    """The model card.

    Args:
        card: What is in ``fedpl.json``.
        metrics: What a score consists of.
        run: The run directory.
        template: The words around a prompt, where answers are words.
    """
    head = {"library_name": "peft", "base_model": card.base, "tags": ["lora", "fedpl"]}
    if card.images:
        head["pipeline_tag"] = "image-classification"
    elif card.loads_as != ENCODER:
        head["pipeline_tag"] = "text-generation" if card.loads_as == CAUSAL else "text-classification"
    about = [
        f"- {_answers(card)}",
        f"- pooling: {card.pooling}; texts are cut to {card.max_length} tokens",
    ]
    if card.images:
        about[1] = f"- pooling: {card.pooling}; images as the base model's own processor makes them"
    if card.loads_as == CAUSAL:
        about = [
            f"- prompts as `{templates.TEMPLATES.get(template, template)!r}`, to {card.max_length} tokens"
        ]
    what = _KINDS[card.kind]
    rows = [
        f"| {name} | {' | '.join(metric.shown(own[metric.name]) for metric in metrics)} |"
        for name, own in (("aggregated", card.scores.aggregated), ("tuned", card.scores.tuned))
        if own is not None
    ]
    option = {"personal": ", personal=True", "newcomers": ", newcomer=True", FOLDER: ', model="best"'}.get(
        card.kind, ""
    )
    names = [f"{metric.label}{f', {metric.unit}' if metric.unit else ''}" for metric in metrics]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# Adapter of client {card.client}",
        "",
        f"LoRA adapter of one client of a federation, {what}, after round {card.round} of `{card.method}`.",
        "",
        f"- base model: `{card.base}`, weights with SHA-256 `{card.base_sha256}`",
        *([f"- frozen linear layers packed in {card.quantized}"] if card.quantized else []),
        *about,
        *_origin(card),
        *_chosen(card, metrics[0]),
        "",
        f"Test scores of this client's models ({', '.join(names)}):",
        "",
        f"| model | {' | '.join(metric.label for metric in metrics)} |",
        f"|---|{'---|' * len(metrics)}",
        *rows,
        "",
        "With fedpl:",
        "",
        "```python",
        "import fedpl",
        "",
        f"fedpl.load({str(run.absolute())!r}, {card.client!r}{option}).predict([{_asked(card)}])",
        "```",
        "",
        *(_causal(template) if card.loads_as == CAUSAL else _without(card)),
        "",
    ]
    return "\n".join(lines)


_KINDS = {
    "adapters": "its aggregate",
    "personal": "what it keeps beside its aggregate",
    "newcomers": "which joined when the run had ended",
    FOLDER: "what it chose by its validation data",
}


_SERVED = {
    "aggregated": "the aggregate as received",
    "tuned": "the aggregate after one more round of local training",
    "local": "what training alone gives, without the others",
}


def _origin(card: Card) -> list[str]:
    """Whose updates are in it, of which data it is, and what made it."""
    found = []
    if card.served is not None:
        found.append(f"- what it holds: {_SERVED[card.served]}")
    if card.begun is not None:
        found.append(f"- begun with models of {card.begun}, digest `{card.begun.digest}`")
    if card.weights is not None:
        shown = (f"{client} {weight:+.3f}" for client, weight in card.weights.items())
        found.append(f"- weights of the last round, its own first: {', '.join(shown)}")
    if card.data is not None:
        found.append(f"- digest of the client's data: `{card.data}`")
    if card.versions is not None:
        found.append(f"- made with {', '.join(f'{name} {one}' for name, one in card.versions.items())}")
    return found


def _chosen(card: Card, metric: Metric) -> list[str]:
    """What the client chose, and by how much the others are better or worse than its aggregate."""
    if card.choice is None:
        return []
    others = [
        f"{name} {' to '.join(metric.shown(end, '+') for end in (own.low, own.high))}"
        for name, own in card.choice.over.items()
    ]
    unit = f" {metric.unit}" if metric.unit else ""
    by = f"{card.choice.examples} validation examples"
    told = (
        f"; over the aggregate, 95 % interval in{unit} {metric.label}: {', '.join(others)}" if others else ""
    )
    return [f"- chosen by {by} to answer for the client: {card.choice.model}{told}"]


def _answers(card: Card) -> str:
    if not card.id2label:
        return "answers: a number, as `fedpl.load` gives it; plain PEFT gives it in the scale of training"
    return f"classes: {', '.join(f'{i} {label}' for i, label in card.id2label.items())}"


def _asked(card: Card) -> str:
    if card.images:
        return "'image.jpg'"
    return "('a text', 'its second')" if card.pairs else "'a text'"


def _without(card: Card) -> list[str]:
    """How PEFT alone loads a classifier; of a pair the model is told what the tokenizer says of it."""
    if card.images:
        return [line.replace("AutoModel", card.loads_as) for line in _ENCODER]
    lines = _OTHERS[card.loads_as]
    if not card.id2label:
        lines = [line.replace("id2label=id2label", "num_labels=1") for line in lines if "= {int" not in line]
    if not card.pairs:
        return lines
    changed = (line.replace('(["a text"], ', '(["a text"], ["its second"], ') for line in lines)
    return [_GIVEN.sub("model(**tokens)", line) for line in changed]


_GIVEN = re.compile(r"model\(input_ids=.*\)(?=\.logits)")
_CLASSIFIER = """With PEFT alone (in this folder; in float32 or bfloat16):

```python
import json

from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

card = json.load(open("fedpl.json"))
id2label = {int(i): label for i, label in card["id2label"].items()}
base = AutoModelForSequenceClassification.from_pretrained(card["base"], id2label=id2label, dtype="float32")
tokenizer = AutoTokenizer.from_pretrained(card["base"], padding_side="right")
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
base.config.pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(base, ".").eval()
cut = {"truncation": True, "max_length": card["max_length"]}
tokens = tokenizer(["a text"], padding=True, return_tensors="pt", **cut)
model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).logits
```""".splitlines()

_ENCODER = """The architecture's own classifier cannot answer as this model does (its pooling or its head is
another), so PEFT alone loads the tuned encoder (in this folder), whose states are pooled as said above and go
through the linear layer in `head.safetensors`:

```python
import json

from peft import PeftModel
from transformers import AutoModel

card = json.load(open("fedpl.json"))
encoder = PeftModel.from_pretrained(AutoModel.from_pretrained(card["base"], dtype="float32"), ".").eval()
```""".splitlines()

_OTHERS = {CLASSIFIER: _CLASSIFIER, ENCODER: _ENCODER}
_CHAT = (
    'said = [{"role": "user", "content": "a prompt"}]',
    "prompt = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)",
)


def _causal(template: str) -> list[str]:
    """How PEFT alone answers in words."""
    words = templates.words_of(template).replace(templates.PLACE, "a prompt")
    asked = [*_CHAT] if template == templates.CHAT else [f"prompt = {words!r}"]
    return [
        "With PEFT alone (in this folder):",
        "",
        "```python",
        "import json",
        "",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        'card = json.load(open("fedpl.json"))',
        'tokenizer = AutoTokenizer.from_pretrained(card["base"])',
        'base = AutoModelForCausalLM.from_pretrained(card["base"], dtype="float32")',
        'model = PeftModel.from_pretrained(base, ".").eval()',
        *asked,
        f'tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens={template != templates.CHAT})',
        "found = model.generate(**tokens, max_new_tokens=80, do_sample=False)[0]",
        'answer = tokenizer.decode(found[tokens["input_ids"].shape[1] :], skip_special_tokens=True)',
        "```",
    ]
