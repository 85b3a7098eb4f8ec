"""Which columns of a table say what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """Names of the table's columns.

    Attributes:
        text: The text to classify.
        text_pair: A second text, where two belong together (premise and hypothesis, two questions): they are
            encoded as the model's tokenizer encodes pairs; empty: there is none.
        label: The class, as a word or a number.
        prompt: What is asked, for tasks whose answers are texts, in place of text and label.
        answer: The answer to learn, beside prompt.
        messages: A conversation in place of prompt and answer: a list of {role, content}, the last one an
            assistant's.
        options: A list of possible answers, for choices.
        value: A number to predict, in place of label (see ``task: Regression``); empty: there is none.
        image: An image in place of a text (see ``task: ImageClassification``): the path of its file, seen
            from the table's folder, or an Image of a dataset; empty: there is none.
        client: Who the row belongs to; ``@file``: each file is a client, called by the file's name without
            its ending.
        split: Holds ``train``, ``validation`` or ``test``; leave empty to split by the fractions below. A
            table with a column ``split`` of such words is refused until that is named, or ``none`` is written
            here. ``@subset``: as the dataset of `HubText` is split itself.
        time: When each row was: a number, or a date such as 2024-05-31. A client's latest rows are its test,
            those before them for validation, its earliest for training; empty: they are drawn.
        group: The client's true group where it is known, one word for all rows of a client: for studies, see
            ``weighting: TrueGroups``; empty: there is none.
    """

    text: str = "text"
    label: str = "label"
    client: str = "client"
    split: str = ""
    prompt: str = ""
    answer: str = ""
    messages: str = ""
    options: str = ""
    group: str = ""
    text_pair: str = ""
    value: str = ""
    image: str = ""
    time: str = ""

    @property
    def dialogues(self) -> bool:
        """Whether rows are prompts with answers, or conversations."""
        return bool(self.prompt or self.answer or self.messages)

    @property
    def classed(self) -> bool:
        """Whether rows have labels, which are classes."""
        return not self.dialogues and not self.value

    @property
    def own(self) -> tuple[str, ...]:
        """The columns in which a row says its example; empty names are none."""
        if self.image:
            return self.image, self.label
        if not self.dialogues:
            return self.text, self.text_pair, self.value or self.label
        return (self.messages,) if self.messages else (self.prompt, self.answer)

    @property
    def lists(self) -> tuple[str, ...]:
        """The columns whose cells are lists."""
        return self.messages, self.options

    def names(self, natural: bool = True) -> list[str]:
        """The columns in use, each once.

        Args:
            natural: Whether clients are those of the client column.
        """
        split = "" if self.by_subset else self.declared
        client = self.client if natural and not self.by_file else ""
        return list(
            dict.fromkeys(n for n in (*self.own, self.options, client, self.group, split, self.time) if n)
        )

    def problems(self) -> list[str]:
        """What is wrong with the settings, one line each."""
        checks = (
            (
                not self.messages or not (self.prompt or self.answer),
                "messages: takes the place of prompt and answer; name one or the other",
            ),
            (
                bool(self.messages) or bool(self.prompt) == bool(self.answer),
                "prompt: goes with answer; name both columns",
            ),
            (self.dialogues or not self.options, "options: goes with prompt and answer, or with messages"),
            (
                not self.dialogues or (self.text, self.label) == ("text", "label"),
                "text: text and label are not read where prompt or messages are named; leave them out",
            ),
            (not self.dialogues or not self.text_pair, "text_pair: goes with text and label"),
            (not self.dialogues or not self.value, "value: goes with text"),
            (
                not self.value or self.label == Columns.label,
                "value: takes the place of label; name one or the other",
            ),
            (
                self.text_pair not in (self.text, self.label, self.value) or not self.text_pair,
                "text_pair: name a column of its own",
            ),
            (
                not self.image
                or (self.text == Columns.text and not (self.text_pair or self.value or self.dialogues)),
                "image: takes the place of text, and goes with label; name one or the other",
            ),
            (not self.image or self.image != self.label, "image: name a column of its own"),
            (
                not self.time or not (self.declared or self.by_subset),
                "time: data.columns.split says it already; name one or the other",
            ),
        )
        return [f"data.columns.{what}" for holds, what in checks if not holds]

    @property
    def by_file(self) -> bool:
        """Whether each file is a client."""
        return self.client == "@file"

    @property
    def by_subset(self) -> bool:
        """Whether the dataset's own splits say it."""
        return self.split == "@subset"

    @property
    def declared(self) -> str:
        """The column that says which row belongs to which split; empty: there is none."""
        return "" if self.split == "none" else self.split
