"""What an adapter's folder says about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedpl.records.choice import Choice
from fedpl.records.earlier import Earlier
from fedpl.records.plain import optional
from fedpl.records.record import Kept
from fedpl.records.results import Models

HEAD_FILE = "head.safetensors"
CLASSIFIER, ENCODER = "AutoModelForSequenceClassification", "AutoModel"
CAUSAL = "AutoModelForCausalLM"


@dataclass(frozen=True, eq=False, kw_only=True)
class Card(Kept):
    """One client's adapter, and what it needs to answer.

    Attributes:
        client: Whose it is.
        kind: adapters: the client's aggregate; personal: what it keeps beside; best: what it chose by its
            validation data; newcomers: of a client that joined later, see ``newcomer.json`` beside it.
        method: Name of the method.
        round: After which round.
        base: The frozen model: an absolute folder, or a hub id.
        base_sha256: Of its weights; of several files: of the lines that ``sha256sum`` prints of them.
        loads_as: The class of transformers on which plain PEFT loads the adapter:
            AutoModelForSequenceClassification (head included), AutoModel (the head is in
            ``head.safetensors``), AutoModelForCausalLM (there is no head) or, of images, the class of the
            tower (ViTModel, CLIPVisionModel, ...; the head is in ``head.safetensors``).
        pooling: How token states become one vector for the head, where there is one.
        max_length: Longer texts are cut to this many tokens.
        id2label: The classes, by the number of the model's answer; empty where it answers in words.
        scores: Of the client's models, on its test split.
        images: Whether it answers to images; null: to texts.
        pairs: Whether it answers to pairs of texts; null: to single ones.
        quantized: What the frozen linear layers were packed in, 4bit or 8bit; null: they were not.
        weights: pₖ of the last round by client: its own, and those of the ten others that count most.
        served: Of newcomers: what it holds, aggregated, tuned or local.
        choice: What the client chose by its validation data, where it did.
        data: Digest of the client's data.
        versions: Of Python and of the packages that results depend on.
        begun: With which run's models the clients of its run began; absent: at θ₀.
    """

    FILE: ClassVar[str] = "fedpl.json"

    client: str
    kind: str
    method: str
    round: int
    base: str
    base_sha256: str
    loads_as: str
    pooling: str
    max_length: int
    id2label: Mapping[str, str]
    scores: Models
    pairs: bool | None = optional()
    quantized: str | None = optional()
    weights: Mapping[str, float] | None = optional()
    served: str | None = optional()
    data: str | None = optional()
    versions: Mapping[str, str] | None = optional()
    images: bool | None = optional()
    choice: Choice | None = optional()
    begun: Earlier | None = optional()

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the model's answers."""
        return tuple(self.id2label[str(i)] for i in range(len(self.id2label)))
