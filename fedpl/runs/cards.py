"""What lies beside each adapter of a run: ``fedpl.json``, by which it is loaded, and a model card."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml

from fedpl.config import Config
from fedpl.files import quoted, write_atomically
from fedpl.model.saved import CAUSAL, CLASSIFIER, ENCODER, HEAD_FILE
from fedpl.model.vision import tower_of
from fedpl.model.weights import digest, resolve
from fedpl.records.card import Card
from fedpl.records.choice import Choice
from fedpl.records.earlier import Earlier
from fedpl.records.messages import Census, Member
from fedpl.records.newcomer import Newcomer
from fedpl.records.results import MethodResult, Models
from fedpl.records.scores import Metric
from fedpl.site.choosing import FOLDER
from fedpl.tasks import templates
from fedpl.versions import versions

_NEIGHBOURS = 10  # that a card names


def describe(
    config: Config,
    census: Census,
    found: MethodResult | None,
    folder: Path,
    choices: Mapping[str, Choice] | None = None,
    begun: Earlier | None = None,
) -> None:
    """Write both files into every adapter's folder of a run, if adapters are there and not with a site.

    Args:
        config: What was run.
        census: All clients.
        found: The method's result; None at a site, which knows neither scores nor weights.
        folder: The run directory.
        choices: What clients chose by their validation data, where they did.
        begun: With which run's models the clients began.

    Raises:
        UserError: If they cannot be written.
    """
    if not (folder / "adapters").is_dir():
        return
    base = resolve(config.model.path), digest(config.model.path)
    for kind in ("adapters", "personal", *([FOLDER] if choices is not None else [])):
        for member in census.members:
            where = folder / kind / quoted(member.client)
            choice = None if choices is None else choices[member.client]
            # Who chose its aggregate has no other copy of it.
            if not where.is_dir() or (kind == FOLDER and choice is not None and choice.model == "aggregated"):
                continue
            weights = {} if found is None else found.taken(member.client)
            card = replace(
                _card(config, census, member, where, base, weights),
                kind=kind,
                choice=choice,
                begun=begun,
                round=config.rounds if found is None else found.rounds,
            )
            if found is not None:
                card = replace(card, scores=found.clients[member.client])
            _put(card, config, census, where, folder)


def describe_newcomer(config: Config, census: Census, newcomer: Newcomer, where: Path, run: Path) -> None:
    """The same for an adapter of a newcomer.

    Args:
        config: The run's.
        census: The newcomers.
        newcomer: Whose it is.
        where: The adapter's folder.
        run: The run directory.

    Raises:
        UserError: If they cannot be written.
    """
    base = resolve(config.model.path), digest(config.model.path)
    member = next(one for one in census.members if one.client == newcomer.client)
    test = newcomer.scores.get("test")
    scores = Models(
        aggregated=None if test is None else test.aggregated, tuned=None if test is None else test.tuned
    )
    card = _card(config, census, member, where, base, newcomer.weights)
    card = replace(card, kind="newcomers", round=newcomer.rounds, scores=scores)
    card = replace(card, served=newcomer.served, begun=newcomer.begun)
    _put(card, config, census, where, run)
    if (own := where / "personal").is_dir():
        card = replace(card, loads_as=_loads_as(config, own))
        _put(card, config, census, own, run)


def _card(
    config: Config,
    census: Census,
    member: Member,
    where: Path,
    base: tuple[str, str],
    weights: Mapping[str, float],
) -> Card:
    return Card(
        client=member.client,
        kind="adapters",
        method=config.name,
        round=0,
        base=base[0],
        base_sha256=base[1],
        loads_as=_loads_as(config, where),
        pooling=config.model.pooling,
        max_length=config.model.max_length,
        id2label={str(i): label for i, label in enumerate(census.labels)},
        scores=Models(aggregated=None, tuned=None),
        pairs=census.pairs or None,
        images=config.task.pictured or None,
        quantized=config.model.quantized,
        weights=_largest(weights, member.client) if weights else None,
        data=member.origin,
        versions=versions(),
    )


def _largest(weights: Mapping[str, float], client: str) -> dict[str, float]:
    """A client's own weight, and those of the others that count most."""
    others = sorted((one for one in weights if one != client), key=lambda one: -abs(weights[one]))
    named = [one for one in others[:_NEIGHBOURS] if weights[one]]
    return {one: weights[one] for one in (client, *named)}


def _put(card: Card, config: Config, census: Census, where: Path, run: Path) -> None:
    card.write(where)
    words = getattr(config.task, "template", "")
    write_atomically(where / "README.md", page(card, census.metrics, run, words).encode())


def _loads_as(config: Config, folder: Path) -> str:
    if not config.task.headed:
        return CAUSAL
    if config.task.pictured:
        return tower_of(config.model)[0].name
    return ENCODER if (folder / HEAD_FILE).exists() else CLASSIFIER


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
