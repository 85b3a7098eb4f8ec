"""Texts, or pairs of them, as a model with a head takes them."""

from collections.abc import Callable, Sequence
from itertools import groupby

from torch import Tensor

from fedpl.data import Pairs, Split
from fedpl.errors import UserError
from fedpl.model.pretrained import kind_of
from fedpl.model.settings import ModelConfig
from fedpl.tasks.encoding import Said, TextEncoder, check_known
from fedpl.tasks.examples import Examples, Sequences


class Texts(TextEncoder):
    """Texts as the tokenizer makes them, a pair as it makes pairs; what belongs to the second text is marked.

    Args:
        model: Which model.
        targets: What is right for each example of a split, [examples].
    """

    def __init__(self, model: ModelConfig, targets: Callable[[Split], Tensor]) -> None:
        super().__init__(model)
        self.targets = targets
        self._typed = getattr(kind_of(model), "type_vocab_size", 0) > 1  # whether it is told which text

    def said(self, split: Split, scored: bool) -> Said:
        seconds = split.seconds if isinstance(split, Pairs) else ()
        rows = [*zip(split.texts, seconds, strict=True)] if seconds else [(text,) for text in split.texts]
        return Said(rows, ("",) * len(rows))

    def sequences(self, said: Said) -> Sequences:
        ids: list[list[int]] = []
        types: list[Sequence[int]] = []
        for number, own in groupby(said.rows, len):
            pairs = number == 2
            if pairs:
                self._check_pairs()
            # Of a pair that is too long the longer text is cut, token by token.
            found = self.tokenizer(
                *([*column] for column in zip(*own, strict=True)),
                truncation="longest_first",
                max_length=self.model.max_length,
                return_token_type_ids=pairs and self._typed,
                return_attention_mask=False,
            )
            ids += found["input_ids"]
            types += found.get("token_type_ids") or [bytes(len(row)) for row in found["input_ids"]]
        return Sequences.of(ids, types)

    def examples(self, split: Split, scored: bool, sequences: Sequences) -> Examples:
        check_known(self.tokenizer, sequences.packed, self.model.path)
        told = self._typed and isinstance(split, Pairs) and bool(split.seconds)
        pad = int(self.tokenizer.pad_token_id)
        return Examples(sequences, self.targets(split), pad, marked="token_type_ids" if told else None)

    @property
    def settings(self) -> str | None:
        return f"texts of {self.model.max_length} tokens, types: {self._typed}"

    def _check_pairs(self) -> None:
        """Refuse pairs where nothing tells the model where the first text ends."""
        add = self.tokenizer.num_special_tokens_to_add
        if not self._typed and add(True) <= add(False):
            raise UserError(
                f"data.columns.text_pair: the tokenizer of {self.model.path} puts nothing between two texts, "
                f"and the model knows no types of tokens; take an encoder such as BERT, or write both texts "
                f"in one column"
            )
