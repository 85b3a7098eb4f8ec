"""Instruction tuning: answers in words from a causal language model, free or among options."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fedpl.data import ClientData, Dialogues, FederatedData, Message, Split
from fedpl.data.wording import readable
from fedpl.deferred import deferred
from fedpl.errors import UserError
from fedpl.model.settings import ModelConfig
from fedpl.records.scores import Metric, Scores
from fedpl.tasks import templates
from fedpl.tasks.decoding import DecodingConfig
from fedpl.tasks.metrics import GENERATION, TOKENS, best_constant, generation_scores
from fedpl.tasks.task import Task
from fedpl.tasks.templates import Questions

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from fedpl.model import language, pretrained
    from fedpl.tasks import conversations, examples
else:
    torch, pretrained, language, conversations = map(
        deferred, ("torch", "fedpl.model.pretrained", "fedpl.model.language", "fedpl.tasks.conversations")
    )

_LARGEST = 700.0  # loss whose exponential is still a number


@dataclass(frozen=True)
class _Answering(Task):
    """A causal language model learns the answers of conversations, each with its end.

    Attributes:
        template: The words around a prompt: alpaca, alpaca_short (### Instruction: / ### Response:), chat
            (the model's own), or a text with ``{prompt}``, in which ``\\n`` is a line break.
    """

    template: str = "alpaca_short"

    headed: ClassVar[bool] = False
    labelled: ClassVar[bool] = False
    zero_shot: ClassVar[bool] = True

    def take(self, data: FederatedData) -> FederatedData:
        if not all(isinstance(client.train, Dialogues) for client in data.clients):
            raise UserError(
                f"task: {type(self).__name__} learns answers in words, and the data have labels; name "
                f"data.columns.prompt and data.columns.answer, or data.columns.messages"
            )
        return data

    def base(self, model: ModelConfig, classes: Sequence[str]) -> "language.LanguageModel":
        return language.load_language_model(model, True)

    def problems(self) -> Sequence[str]:
        return templates.problems(self.template)

    def encoder(self, model: ModelConfig) -> "Callable[..., examples.Examples]":
        return conversations.Conversations(model, self.template, self._rows, self._every, self._columns)

    def losses(self, outputs: "Float[Tensor, 'rows']", targets: "Tensor") -> "Float[Tensor, 'rows']":
        return -outputs / targets[:, 0]

    def answers(self, outputs: "Float[Tensor, 'rows']") -> list[Any]:
        return outputs.tolist()

    def questions(self, model: ModelConfig) -> Callable[[Split], Questions]:
        tokenizer = pretrained.load_tokenizer(model)
        turns = templates.turns_of(tokenizer, self.template, model.path)

        def ask(split: Split) -> Questions:
            assert isinstance(split, Dialogues)
            found = [turns(said) for said in split.messages]
            ends = {own[-1].answer[-1] for own in found} | {tokenizer.eos_token_id}
            ids = [templates.asked(own, model.max_length, tokenizer) for own in found]
            return Questions(ids, split.answers, tuple(sorted(ends)))

        return ask

    _columns: ClassVar[int] = 1
    _every: ClassVar[bool] = True  # whether every answer of a conversation is scored, or the last one alone

    def _rows(
        self, split: Dialogues, scored: bool
    ) -> Iterator[tuple[tuple[Message, ...], str, tuple[int, ...]]]:
        """Conversations to encode, what they are called, and what their targets say beside their number."""
        for said, at in zip(split.messages, split.places, strict=True):
            yield said, at, ()


@dataclass(frozen=True)
class Generation(_Answering):
    """Answers in words, learned token by token; every assistant's turn of a conversation is learned.

    Scores are of the right answer's tokens, each after the right ones before it; with `decoding` also of
    answers that the model writes.

    Attributes:
        decoding: How answers are written whenever models are scored, which then counts first (ROUGE and exact
            match); null writes none. It takes far longer than the loss: ``evaluation.every: 0`` scores at
            the end alone.
    """

    decoding: DecodingConfig | None = None

    decoded: ClassVar[tuple[Metric, ...]] = GENERATION

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return self.decoded * (self.decoding is not None) + TOKENS

    @property
    def writes(self) -> DecodingConfig | None:
        return self.decoding

    def problems(self) -> Sequence[str]:
        own = () if self.decoding is None else self.decoding.problems("task.decoding")
        return [*super().problems(), *own]

    def score(self, targets: Sequence[Sequence[int]], answers: Sequence[float]) -> Scores:
        return _per_token(-sum(answers) / sum(number for (number,) in targets))

    def floor(self, client: ClientData, train: "examples.Examples", test: "examples.Examples") -> Scores:
        """By the frequency of each token in the training answers; new ones count as one that came once."""
        assert train.marks is not None
        assert test.marks is not None
        known = Counter(train.tokens[train.marks].tolist())
        total = known.total() + len(known) + 1
        asked = test.tokens[test.marks].tolist()
        return _per_token(-sum(math.log((known[token] + 1) / total) for token in asked) / len(asked))

    def score_decoded(self, references: Sequence[str], answers: Sequence[str]) -> Scores:
        return generation_scores(references, answers)

    def floor_decoded(self, client: ClientData) -> Scores:
        assert isinstance(client.train, Dialogues)
        assert isinstance(client.test, Dialogues)
        constant = best_constant(client.train.answers)
        return generation_scores(client.test.answers, [constant] * len(client.test))


@dataclass(frozen=True)
class Choice(_Answering):
    """The likeliest of several answers, each with its end; the right one is learned as in `Generation`.

    Without options in the data, a client's are the answers in its training data.

    Attributes:
        normalise: Whether an option's log-probability is divided by its number of tokens.
    """

    normalise: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("accuracy", "%"),)

    _columns: ClassVar[int] = 4
    _every: ClassVar[bool] = False

    def take(self, data: FederatedData) -> FederatedData:
        data = super().take(data)
        bare = {client.id for client in data.clients if not client.train.options}  # type: ignore[attr-defined]
        if not bare:
            return data
        clients = tuple(_with_options(client) if client.id in bare else client for client in data.clients)
        one = [client.id for client in clients if len(client.train.options[0]) < 2]  # type: ignore[attr-defined]
        if one:
            raise UserError(
                f"task: Choice: client '{readable(one[0])}' has one answer alone in training, nothing to "
                f"choose from; name data.columns.options, or leave it out"
            )
        lost = sum(label < 0 for c in clients for own in (c.validation, c.test) for label in own.labels)
        notes = ["options: the answers in each client's training data (data.columns.options names none)"]
        if lost:
            notes.append(
                f"warning: {lost} validation or test examples have an answer that is none of their client's "
                f"options: they count as wrong"
            )
        return replace(data, clients=clients, notes=(*data.notes, *notes))

    def score(self, targets: Sequence[Sequence[int]], answers: Sequence[float]) -> Scores:
        hits = self.goods(targets, answers)
        return {"accuracy": sum(hits) / len(hits)}

    def goods(self, targets: Sequence[Sequence[int]], answers: Sequence[float]) -> list[float]:
        best: dict[int, tuple[float, int]] = {}
        right = {}
        for (number, example, option, label), found in zip(targets, answers, strict=True):
            value = found / number if self.normalise else found
            # The first of equal ones, whatever the order in which they come.
            best[example] = max(best.get(example, (-math.inf, 1)), (value, -option))
            right[example] = label
        return [float(-best[example][1] == right[example]) for example in sorted(right)]

    def floor(self, client: ClientData, train: "examples.Examples", test: "examples.Examples") -> Scores:
        """The answer that is most frequent in training, where it is an option, else the first option."""
        assert isinstance(client.train, Dialogues)
        assert isinstance(client.test, Dialogues)
        times = Counter(client.train.answers)
        hits = 0
        for options, label in zip(client.test.options, client.test.labels, strict=True):
            chosen = max(range(len(options)), key=lambda i: (times[options[i]], -i))
            hits += chosen == label
        return {"accuracy": hits / len(client.test)}

    def _rows(
        self, split: Dialogues, scored: bool
    ) -> Iterator[tuple[tuple[Message, ...], str, tuple[int, ...]]]:
        columns = zip(split.messages, split.places, split.options, split.labels, strict=True)
        for i, (said, at, options, label) in enumerate(columns):
            for place, option in enumerate(options):
                if scored:
                    yield (*said[:-1], Message("assistant", option)), at, (i, place, label)
                elif place == label:
                    yield said, at, (i, place, label)


def _with_options(client: ClientData) -> ClientData:
    assert isinstance(client.train, Dialogues)
    options = tuple(sorted(set(client.train.answers)))
    places = {option: place for place, option in enumerate(options)}

    def given(split: Split) -> Dialogues:
        assert isinstance(split, Dialogues)
        labels = tuple(places.get(answer, -1) for answer in split.answers)
        return replace(split, labels=labels, options=(options,) * len(split))

    return replace(
        client, train=given(client.train), validation=given(client.validation), test=given(client.test)
    )


def _per_token(loss: float) -> Scores:
    return {"loss": loss, "perplexity": math.exp(min(loss, _LARGEST))}
