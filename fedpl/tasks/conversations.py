"""Conversations as a causal language model takes them: which tokens are learned, and what is cut."""

from collections.abc import Callable, Iterator

import torch

from fedpl.data import Dialogues, Message, Split
from fedpl.model.settings import ModelConfig
from fedpl.tasks import templates
from fedpl.tasks.encoding import Said, TextEncoder, check_known
from fedpl.tasks.examples import Examples, Sequences

# Conversations of a split, what they are called, and what their targets say beside their number.
Rows = Callable[[Dialogues, bool], Iterator[tuple[tuple[Message, ...], str, tuple[int, ...]]]]


class Conversations(TextEncoder):
    """Conversations by a template; what is learned is marked.

    Args:
        model: Which model.
        template: The words around prompts.
        rows: A split's conversations.
        every: Whether every answer of one that is scored counts, or the last one alone.
        columns: Of the targets.

    Raises:
        UserError: If the tokenizer has no end token, or no template of its own where that is asked for.
    """

    def __init__(self, model: ModelConfig, template: str, rows: Rows, every: bool, columns: int) -> None:
        super().__init__(model)
        self.template = template
        self._rows, self._every, self._columns = rows, every, columns
        self._turns = templates.turns_of(self.tokenizer, template, model.path)

    def said(self, split: Split, scored: bool) -> Said:
        assert isinstance(split, Dialogues)
        last = scored and not self._every
        found = [((last, *said), at) for said, at, _ in self._rows(split, scored)]
        return Said([row for row, _ in found], [at for _, at in found])

    def sequences(self, said: Said) -> Sequences:
        rows = []
        for (last, *messages), at in zip(said.rows, said.places, strict=True):
            turns = self._turns(messages)
            turns = templates.last_alone(turns) if last else turns
            keep = templates.beginning(self.tokenizer, turns[0].before)
            rows.append(templates.sequenced(turns, self.model.max_length, keep, at))
        return Sequences.of(
            [row.ids for row in rows], [row.learned for row in rows], [row.cut for row in rows]
        )

    def examples(self, split: Split, scored: bool, sequences: Sequences) -> Examples:
        assert isinstance(split, Dialogues)
        check_known(self.tokenizer, sequences.packed, self.model.path)
        learned = sequences.marked.tolist()
        own = [
            (number, *more) for number, (_, _, more) in zip(learned, self._rows(split, scored), strict=True)
        ]
        targets = torch.tensor(own, dtype=torch.long).view(len(own), self._columns)
        pad = int(self.tokenizer.pad_token_id)
        return Examples(sequences, targets, pad, list(map(float, learned)), "learned")

    @property
    def settings(self) -> str | None:
        if self.template == templates.CHAT and "strftime_now" in str(self.tokenizer.chat_template):
            return None  # it writes today's date
        return f"conversations of {self.model.max_length} tokens: {templates.words_of(self.template)}"
