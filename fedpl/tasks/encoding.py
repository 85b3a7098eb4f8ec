"""How texts become tensors, in two steps: what a row says decides its tokens, wherever it stands."""

import hashlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers
import transformers
from jaxtyping import Int32

from fedpl.data import Split
from fedpl.errors import UserError
from fedpl.model.pretrained import load_tokenizer
from fedpl.model.settings import ModelConfig
from fedpl.tasks.examples import Examples, Sequences

_ENOUGH = 20  # tokens, from which on the share of unknown ones says something


class Said(NamedTuple):
    """Rows before they are tokens.

    Attributes:
        rows: What each says, as plain values: all of the data that its tokens depend on.
        places: What each is called in messages to people.
    """

    rows: Sequence[tuple[Any, ...]]
    places: Sequence[str]


class TextEncoder(ABC):
    """Makes tensors of splits; called with a split, and whether it is to be scored.

    Args:
        model: Whose tokenizer.

    Raises:
        UserError: If there is no such model.
    """

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.tokenizer: Any = load_tokenizer(model)

    def __call__(self, split: Split, scored: bool = False) -> Examples:
        return self.examples(split, scored, self.sequences(self.said(split, scored)))

    @abstractmethod
    def said(self, split: Split, scored: bool) -> Said:
        """A split's rows; their number may be another one than the split's."""

    @abstractmethod
    def sequences(self, said: Said) -> Sequences:
        """Tokens of rows, whichever splits they are from.

        Raises:
            UserError: If one does not fit.
        """

    @abstractmethod
    def examples(self, split: Split, scored: bool, sequences: Sequences) -> Examples:
        """A split with its tokens.

        Raises:
            UserError: If most of its words are unknown to the tokenizer.
        """

    @property
    @abstractmethod
    def settings(self) -> str | None:
        """What tokens depend on beside their row and the tokenizer; None: on more, such as the date."""

    @property
    def key(self) -> str:
        """A digest of all that tokens depend on beside their row: settings, tokenizer, libraries."""
        known = f"{self.settings} {tokenizers.__version__} {transformers.__version__}"
        digest = hashlib.sha256(known.encode())
        with tempfile.TemporaryDirectory() as folder:
            # A fresh one: the files of one in use say what it was last asked for.
            load_tokenizer(self.model).save_pretrained(folder)
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    content = hashlib.sha256(file.read_bytes()).hexdigest()
                    digest.update(f"\n{file.relative_to(folder)} {content}".encode())
        return digest.hexdigest()[:16]


def check_known(tokenizer: Any, packed: Int32[np.ndarray, "tokens"], path: str) -> None:
    """Refuse a tokenizer to which most of a client's texts are unknown: all words would be the same one.

    Args:
        tokenizer: The model's.
        packed: The texts' tokens, as in `Sequences`.
        path: The model, for messages.

    Raises:
        UserError: Naming the model and the share.
    """
    lost = tokenizer.unk_token_id  # looked up once: a property that searches the vocabulary
    tokens = packed ^ (packed >> 31)
    special = [token for token in tokenizer.all_special_ids if token != lost]
    words = len(tokens) - int(np.isin(tokens, special).sum())
    unknown = 0 if lost is None else int((tokens == lost).sum())
    if words >= _ENOUGH and unknown > words / 2:
        share = f"{100 * unknown / words:.0f} %"
        raise UserError(
            f"model.path: the tokenizer of {path} does not know {share} of the words of a client's texts, "
            f"expected at most half; put the model's own tokenizer into its folder, or take a model for this "
            f"language"
        )
