"""A client's adapter, ready to answer."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

from fedpl.data import Images, Pairs, Split
from fedpl.data.dialogues import Example, dialogues, exchange
from fedpl.data.pictures import asked as asked_images
from fedpl.errors import UserError
from fedpl.files import quoted
from fedpl.model.base import HEAD
from fedpl.model.pretrained import load_tokenizer
from fedpl.model.quantised import quantisation, settle
from fedpl.model.settings import ModelConfig
from fedpl.model.weights import digest, resolve
from fedpl.presets import read_yaml
from fedpl.records.card import CAUSAL, CLASSIFIER, HEAD_FILE, Card
from fedpl.records.choice import FOLDER, Choice
from fedpl.settings import build, importing_nothing
from fedpl.tasks import Task

# A text, a pair of texts, or an image: the path of its file, or the bytes of one.
Text: TypeAlias = str | tuple[str, str] | Path | bytes
Served: TypeAlias = Literal["aggregated", "best"]
_TOGETHER = 32  # texts in one pass
_MOST_NEW = 80  # tokens of an answer in words


@dataclass(frozen=True)
class ClientModel:
    """The frozen model with one client's adapter, in evaluation mode, on the CPU.

    Attributes:
        card: What it is: its labels, base, method, scores.
        model: The model as PEFT has loaded it: `card.loads_as` says on what.
        task: What it has learnt.
        head: What pools and answers, where `model` does not do it itself.
    """

    card: Card
    model: PeftModel
    task: Task
    head: torch.nn.Module | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        return self.card.labels

    def logits(self, texts: Sequence[Text]) -> Float[Tensor, "texts classes"]:
        """What the model gives for each text, each pair (first, second) or each image, before softmax.

        Raises:
            UserError: If it answers in words, or pairs are given to a model of single texts or the other way.
        """
        if not self.task.headed:
            raise UserError("logits: the model answers in words; call predict, or use its .model")
        return torch.cat([torch.empty(0, len(self.labels) or 1), *self._outputs(texts)])

    def predict(self, texts: Sequence[Text], **options: Any) -> list[Any]:
        """The class of each text, its number in regression, or the answer to each prompt, decoded greedily.

        Args:
            texts: Texts, pairs of texts, prompts, or images (paths of files, or bytes of files).
            options: Of transformers' ``generate``, where answers are words.
        """
        if not self.task.headed:
            return [answer for text in texts for answer in self.answers_in_words([str(text)], options)]
        return self.named([one for out in self._outputs(texts) for one in self.task.answers(out)])

    def named(self, answers: Sequence[Any]) -> list[Any]:
        """Answers by the names of their classes, where there are classes."""
        return [self.labels[one] for one in answers] if self.task.labelled else list(answers)

    @torch.no_grad()
    def answers_in_words(self, prompts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
        """What the model writes to prompts that go through it together, filled up on the left.

        Args:
            prompts: At least one.
            options: Of transformers' ``generate``.
        """
        settings = model_settings(self.card, self.card.base)
        ask = self.task.questions(settings)
        assert ask is not None
        rows = [Example(prompt, messages=exchange(prompt, "?")) for prompt in prompts]
        asked = ask(dialogues(rows, range(len(rows)), self.card.client))
        tokenizer, longest = load_tokenizer(settings), max(map(len, asked.ids))
        left = [longest - len(row) for row in asked.ids]
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * n + row for n, row in zip(left, asked.ids, strict=True)])
        mask = torch.tensor([[0] * n + [1] * (longest - n) for n in left])
        how: dict[str, Any] = {"max_new_tokens": _MOST_NEW, "do_sample": False, **options}
        ends = {"eos_token_id": list(asked.ends), "pad_token_id": pad}
        found: Any = self.model.generate(input_ids=ids, attention_mask=mask, **ends, **how)
        return [str(tokenizer.decode(row[longest:], skip_special_tokens=True)) for row in found]

    def inputs(self, texts: "Sequence[Text]") -> dict[str, Tensor]:
        """Texts as the model takes them, all in one pass."""
        settings = model_settings(self.card, self.card.base)
        examples = self.task.encoder(settings)(self._split(texts))
        found: dict[str, Tensor] = examples.collate(list(range(len(texts)))).inputs
        return found

    @torch.no_grad()
    def _outputs(self, texts: Sequence[Text]) -> list[Tensor]:
        if not texts:
            return []
        settings = model_settings(self.card, self.card.base)
        examples = self.task.encoder(settings)(self._split(texts))
        found = []
        for start in range(0, len(texts), _TOGETHER):
            inputs = examples.collate(list(range(start, min(start + _TOGETHER, len(texts))))).inputs
            found.append(self.model(**inputs).logits if self.head is None else self.head(**inputs))
        return found

    def _split(self, texts: "Sequence[Text]") -> Split:
        labels = (0,) * len(texts)
        if self.task.pictured:
            files = [one for one in texts if isinstance(one, str | Path | bytes)]
            if len(files) < len(texts):
                raise UserError(
                    f"predict: the model of client '{self.card.client}' has learnt images: give paths of "
                    f"files, or the bytes of files"
                )
            pictures = asked_images(files)
            return Images(tuple(picture.name for picture in pictures), labels, pictures)
        firsts = [text for text in texts if isinstance(text, str)]
        pairs = [(text[0], text[1]) for text in texts if isinstance(text, tuple) and len(text) == 2]
        if self.card.pairs and len(pairs) == len(texts):
            first, second = zip(*pairs, strict=True)
            return Pairs(first, labels, second)
        if not self.card.pairs and len(firsts) == len(texts):
            return Split(tuple(firsts), labels)
        wanted = "pairs of texts: give (first, second) for each" if self.card.pairs else "single texts"
        raise UserError(f"predict: the model of client '{self.card.client}' has learnt {wanted}")


def model_settings(card: Card, base: str) -> ModelConfig:
    """The model's settings, of which the run's were a part."""
    pooling: Any = card.pooling
    quantized: Any = card.quantized
    return ModelConfig(path=base, pooling=pooling, max_length=card.max_length, quantized=quantized)


def load(
    run: Path,
    client: str,
    personal: bool = False,
    base: str | None = None,
    newcomer: bool = False,
    name: str = "default",
    model: Served = "aggregated",
) -> ClientModel:
    """A client's model.

    Args:
        run: The run directory.
        client: The client's id.
        personal: The model that the client keeps beside its aggregate (Ditto, APFL), instead.
        base: Where the frozen model lies now, if not where it did.
        newcomer: Whether it is one that joined when the run had ended (``newcomers/``).
        name: What PEFT calls the adapter.
        model: best: what the client chose by its validation data (``client.guard: validation``), instead.

    Raises:
        UserError: If there is no such adapter, it is not whole, or the frozen model is not there or another.
    """
    folder, card = located(run, client, personal, base, newcomer, model)
    task = task_of(run)
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # it would warn of the head, which the adapter brings
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*is deprecated.*")  # inside PEFT
            return _loaded(card, task, folder, name)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be loaded as an adapter: {' '.join(str(error).split())}") from error
    finally:
        transformers_logging.set_verbosity(before)


def located(
    run: Path,
    client: str,
    personal: bool = False,
    base: str | None = None,
    newcomer: bool = False,
    model: Served = "aggregated",
) -> tuple[Path, Card]:
    """An adapter's folder and card, which names its frozen model where that lies now; as of `load`."""
    kind = "newcomers" if newcomer else "personal" if personal else "adapters"
    if model == "best":
        kind = _best(run, client, kind)
    folder = _folder(run, client, kind)
    if newcomer and personal:
        folder = folder / "personal"
    if not (folder / Card.FILE).is_file():
        raise UserError(
            f"{folder} has no {Card.FILE}: the run is not finished, or an earlier version made it; go on "
            f"with python -m fedpl.fit --resume {run}"
        )
    card = Card.read(folder)
    path = card.base if base is None else resolve(base)
    found = digest(path)
    if found != card.base_sha256:
        raise UserError(
            f"{folder} belongs to a base model whose weights have SHA-256 {card.base_sha256}, those of "
            f"{path} have {found}; name the right one: fedpl.load(..., base=...)"
        )
    return folder, replace(card, base=path)


def _best(run: Path, client: str, kind: str) -> str:
    """Where what a client chose lies."""
    if kind != "adapters":
        raise UserError(f"model: best is chosen among a client's own models, not among its {kind}; name one")
    if not (run / FOLDER).is_dir():
        raise UserError(f"model: clients of {run} chose nothing; runs with client.guard: validation let them")
    where = _folder(run, client, FOLDER)
    return kind if Choice.read(where).model == "aggregated" else FOLDER


def clients_with_adapters(run: Path, newcomer: bool = False) -> list[str]:
    """Whose adapters a run holds, in sorted order of their folders.

    Raises:
        UserError: If there are none.
    """
    kind = "newcomers" if newcomer else "adapters"
    found = [Card.read(path.parent).client for path in sorted((run / kind).glob(f"*/{Card.FILE}"))]
    if not found:
        raise UserError(f"{run / kind} holds no adapters; is the run finished?")
    return found


def task_of(run: Path) -> Task:
    """What a run has learnt.

    Raises:
        UserError: If the directory names code that is not imported from there.
    """
    settings = run / "config.yaml"
    with importing_nothing(settings):
        named = read_yaml(settings).get("task") or "Classification"
        return build(Task, named, "task")  # type: ignore[type-abstract]


def _loaded(card: Card, task: Task, folder: Path, name: str) -> ClientModel:
    settings = model_settings(card, card.base)
    if card.loads_as == CLASSIFIER:
        own = AutoModelForSequenceClassification.from_pretrained(
            card.base,
            **({"id2label": dict(enumerate(card.labels))} if card.labels else {"num_labels": 1}),
            dtype=torch.float32,
            **quantisation(card.quantized, PeftConfig.from_pretrained(str(folder)).modules_to_save),
        )
        settle(own)
        own.config.pad_token_id = load_tokenizer(settings).pad_token_id
        return ClientModel(card, PeftModel.from_pretrained(own, str(folder), name).eval(), task)
    if card.loads_as == CAUSAL:
        causal = AutoModelForCausalLM.from_pretrained(
            card.base, dtype=torch.float32, **quantisation(card.quantized)
        )
        settle(causal)
        return ClientModel(card, PeftModel.from_pretrained(causal, str(folder), name).eval(), task)
    whole = task.base(settings, card.labels).eval()
    head = load_file(folder / HEAD_FILE)
    if (bias := head.pop(f"{HEAD}.bias", None)) is not None:  # where classes are kept out, any head has one
        whole.head.register_parameter("bias", torch.nn.Parameter(bias))
    whole.load_state_dict(head, strict=False)
    model = PeftModel.from_pretrained(whole.encoder, str(folder), name).eval()
    whole.set_submodule("encoder", model)
    return ClientModel(card, model, task, whole)


def _folder(run: Path, client: str, kind: str) -> Path:
    folder = run / kind / quoted(client)
    if not folder.is_dir():
        if not (run / "config.yaml").is_file():
            raise UserError(f"{run} holds no run (there is no config.yaml in it)")
        there = sorted(path.name for path in (run / kind).glob("*"))
        shown = ", ".join(there[:8]) + ", ..." * (len(there) > 8)
        raise UserError(f"{folder.parent} holds nothing of client '{client}'; there is {shown or 'nothing'}")
    return folder
