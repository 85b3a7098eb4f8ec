"""All adapters of a run on one frozen model, whose rows in one batch may be different clients'."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from torch import Tensor, nn

from fedpl.data.wording import some
from fedpl.errors import UserError
from fedpl.records.card import HEAD_FILE
from fedpl.runs.adapters import ClientModel, Served, Text, load, located

_TOGETHER = 32  # rows of one pass
_MIXED = (nn.Linear, nn.Embedding)  # modules that PEFT has rows of several adapters go through


@dataclass(frozen=True)
class ClientModels:
    """The frozen model with several clients' adapters, in evaluation mode, on the CPU.

    Attributes:
        clients: Whose.
        model: PEFT's, with an adapter named ``c0``, ``c1``, ... for each of them.
        first: The first client's model, whose card, task and frozen weights are those of all.
        heads: What answers on pooled states where `model` does not do it itself, by client.
        mixed: Whether rows of different clients go through in one pass (PEFT's ``adapter_names``); where
            PEFT has no way for a saved module (BERT's pooler), each client's go by themselves.
    """

    clients: tuple[str, ...]
    model: PeftModel
    first: ClientModel
    heads: tuple[Mapping[str, Tensor], ...]
    mixed: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        return self.first.labels

    def logits(self, texts: Sequence[Text], clients: Sequence[str]) -> Float[Tensor, "texts classes"]:
        """What each text's client's model gives, before softmax.

        Args:
            texts: Texts.
            clients: Whose each of them is.

        Raises:
            UserError: If answers are words, or a client has no adapter here.
        """
        if not self.first.task.headed:
            raise UserError("logits: the models answer in words; call predict")
        found = torch.empty(len(texts), len(self.labels) or 1)
        numbers = self._numbers(texts, clients)
        for places in self._parts(numbers):
            found[places] = self._outputs([texts[i] for i in places], [numbers[i] for i in places])
        return found

    def predict(self, texts: Sequence[Text], clients: Sequence[str], **options: Any) -> list[Any]:
        """The class or number of each text, or the answer to each prompt, by its client's model, greedily.

        Args:
            texts: Texts, or prompts.
            clients: Whose each of them is.
            options: Of transformers' ``generate``, where answers are words.

        Raises:
            UserError: If a client has no adapter here.
        """
        if self.first.task.headed:
            return self.first.named(self.first.task.answers(self.logits(texts, clients)))
        found, numbers = [""] * len(texts), self._numbers(texts, clients)
        for places in self._parts(numbers):
            own = [str(texts[i]) for i in places]
            with self._adapters([numbers[i] for i in places]) as names:
                answers = self.first.answers_in_words(own, {**names, **options})
            for place, answer in zip(places, answers, strict=True):
                found[place] = answer
        return found

    def _numbers(self, texts: Sequence[Text], clients: Sequence[str]) -> list[int]:
        if len(texts) != len(clients):
            raise ValueError(f"expected a client for each text, got {len(texts)} and {len(clients)}")
        if unknown := sorted(set(clients) - set(self.clients)):
            raise UserError(f"no adapter of {some(unknown, 5)}; there are {some(self.clients, 8)}")
        return [self.clients.index(client) for client in clients]

    def _parts(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Places of the rows that go through together."""
        order = list(range(len(numbers)))
        groups = [order] if self.mixed else [[i for i in order if numbers[i] == n] for n in set(numbers)]
        for group in groups:
            yield from (group[i : i + _TOGETHER] for i in range(0, len(group), _TOGETHER))

    @contextmanager
    def _adapters(self, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        """What to call the model with so that each row goes through its own adapter."""
        if self.mixed:
            yield {"adapter_names": [f"c{number}" for number in numbers]}
        else:
            self.model.set_adapter(f"c{numbers[0]}")
            yield {}

    @torch.no_grad()
    def _outputs(self, texts: Sequence[Text], numbers: Sequence[int]) -> Float[Tensor, "texts classes"]:
        inputs = self.first.inputs(texts)
        with self._adapters(numbers) as names:
            if not self.heads:
                return self.model(**inputs, **names).logits
            assert self.first.head is not None
            pooled = self.first.head(**inputs, **names)
        own = [self.heads[number] for number in numbers]
        found = torch.einsum("rf,rcf->rc", pooled, torch.stack([head["head.weight"] for head in own]))
        if "head.bias" in own[0]:
            found = found + torch.stack([head["head.bias"] for head in own])
        return found


class _Named(nn.Module):
    """An encoder that hands the names of its rows' adapters on."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        self.whole = whole
        self.names: dict[str, Any] = {}
        whole.get_submodule("encoder").register_forward_pre_hook(self._add, with_kwargs=True)

    def _add(self, module: nn.Module, inputs: tuple, options: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return inputs, {**options, **self.names}

    def forward(self, adapter_names: Sequence[str] | None = None, **inputs: Tensor) -> Tensor:
        self.names = {} if adapter_names is None else {"adapter_names": adapter_names}
        found: Tensor = self.whole(**inputs)
        return found


def load_all(
    run: Path,
    clients: Sequence[str],
    base: str | None = None,
    newcomer: bool = False,
    served: Served = "aggregated",
) -> ClientModels:
    """Several clients' models on one frozen model.

    Args:
        run: The run directory.
        clients: Whose, each once and at least one.
        base: Where the frozen model lies now, if not where it did.
        newcomer: Whether they are such as joined when the run had ended.
        served: As ``model`` of `fedpl.runs.adapters.load`.

    Raises:
        UserError: As of `fedpl.runs.adapters.load`.
    """
    folders = [located(run, client, False, base, newcomer, served)[0] for client in clients]
    first = load(run, clients[0], base=base, newcomer=newcomer, name="c0", model=served)
    model: Any = first.model
    for number, folder in enumerate(folders[1:], start=1):
        model.load_adapter(str(folder), adapter_name=f"c{number}")
    model.eval()
    heads: tuple[Mapping[str, Tensor], ...] = ()
    if first.head is not None:
        whole: Any = first.head
        whole.head = nn.Identity()
        heads = tuple(load_file(folder / HEAD_FILE) for folder in folders)
        first = ClientModel(first.card, model, first.task, _Named(whole).eval())
    saved = (m.original_module for m in model.modules() if isinstance(m, AuxiliaryTrainingWrapper))
    mixed = all(isinstance(module, _MIXED) for module in saved)
    return ClientModels(tuple(clients), model, first, heads, mixed)
