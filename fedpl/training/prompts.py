"""What clients' models are asked in words, and what they wrote last."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedpl.data import FederatedData
from fedpl.model.pretrained import load_tokenizer
from fedpl.model.settings import ModelConfig
from fedpl.objectives.models import Duo, Models
from fedpl.tasks import Task
from fedpl.tasks.decoding import DecodingConfig
from fedpl.tasks.templates import Questions
from fedpl.training.decoding import Ends, prompt_stream

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Prompts:
    """The prompts of all clients.

    Attributes:
        settings: How answers are written.
        ends: Where they end.
        tokenizer: The model's.
        questions: By client and split.
        written: The model that wrote last, by digest, and its answers; by client and split. Grows with use.
    """

    settings: DecodingConfig
    ends: Ends
    tokenizer: Any
    questions: Mapping[tuple[str, str], Questions]
    written: dict[tuple[str, str], tuple[bytes, list[str]]] = field(default_factory=dict)

    def streams(self, seed: int, client: str, split: str) -> list[int]:
        """Seed of what is drawn for each prompt: the same in every round, so that rounds compare."""
        own = self.questions[client, split]
        return [prompt_stream(seed, 0, f"{client}\n{split}", place) for place in range(len(own.ids))]

    def known(self, client: str, split: str, model: Models) -> list[str] | None:
        """What this model has written, if it was the last one."""
        digest, answers = self.written.get((client, split), (b"", []))
        return answers if digest == _digest(model) else None

    def keep(self, client: str, split: str, model: Models, answers: Sequence[str]) -> None:
        """Remember what a model wrote."""
        self.written[client, split] = (_digest(model), list(answers))


def prompts_of(task: Task, model: ModelConfig, data: FederatedData) -> Prompts | None:
    """The prompts of all clients; None where nothing is written.

    Raises:
        UserError: If there is no such model.
    """
    settings, ask = task.writes, task.questions(model)
    if settings is None or ask is None:
        return None
    questions = {
        (client.id, split): ask(getattr(client, split)) for client in data.clients for split in SPLITS
    }
    tokenizer = load_tokenizer(model)
    ends = {end for own in questions.values() for end in own.ends}
    return Prompts(settings, Ends(tuple(sorted(ends)), settings.stop, tokenizer), tokenizer, questions)


def _digest(model: Models) -> bytes:
    """Of one client's model; the shares of pairs of adapters are the run's."""
    found = hashlib.blake2b(digest_size=16)
    for adapter in (model.local, model.common) if isinstance(model, Duo) else (model,):
        found.update(adapter.cpu().contiguous().numpy().tobytes())
    return found.digest()
