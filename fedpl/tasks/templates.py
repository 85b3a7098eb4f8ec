"""How a conversation becomes tokens: the words around prompts, and which tokens are learned."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fedpl.data import Message
from fedpl.errors import UserError

CHAT = "chat"
TEMPLATES = {
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\n{prompt}\n\n### Response:\n"
    ),
    "alpaca_short": "### Instruction:\n{prompt}\n\n### Response:\n",
}
PLACE = "{prompt}"


class Turn(NamedTuple):
    """Tokens up to an answer, and those of the answer with its end.

    Attributes:
        before: What is not learned.
        answer: What is.
    """

    before: list[int]
    answer: list[int]


class Sequenced(NamedTuple):
    """An example as tokens.

    Attributes:
        ids: The tokens.
        learned: Whether each is learned.
        cut: Whether some were left out at the beginning.
    """

    ids: list[int]
    learned: list[bool]
    cut: bool


class Questions(NamedTuple):
    """What is to be answered in words.

    Attributes:
        ids: Tokens of each prompt; the answer follows them.
        references: What is right.
        ends: Tokens that end an answer.
    """

    ids: list[list[int]]
    references: tuple[str, ...]
    ends: tuple[int, ...]


def problems(template: str) -> list[str]:
    """What is wrong with a template, one line each."""
    if template == CHAT or template in TEMPLATES or PLACE in template:
        return []
    known = ", ".join((*TEMPLATES, CHAT))
    return [f"task.template: expected {known}, or text of your own that holds {PLACE}, got {template!r}"]


def words_of(template: str) -> str:
    """The text of a template; a line break may have come from a command line as two characters."""
    return TEMPLATES.get(template, template.replace(r"\n", "\n"))


def turns_of(tokenizer: Any, template: str, path: str) -> Callable[[Sequence[Message]], list[Turn]]:
    """How a conversation becomes turns; prompt and answer are tokenised apart, and every answer has its end.

    Args:
        tokenizer: The model's.
        template: A name, or text with ``{prompt}``.
        path: The model, for messages.

    Raises:
        UserError: If the tokenizer has no token for the end, or no template for conversations.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model.path: the tokenizer of {path} has no end token (eos_token), which answers end with"
        )

    def tokens(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    if template == CHAT:
        if not tokenizer.chat_template:
            raise UserError(f"task.template: the tokenizer of {path} has no chat template; take alpaca_short")
        return lambda said: _chat(tokenizer, tokens, said, path)
    words = words_of(template)
    begin = tokenizer("")["input_ids"][:1]
    begin = list(begin) if begin == [tokenizer.bos_token_id] else []

    def turns(said: Sequence[Message]) -> list[Turn]:
        system = [one.content for one in said if one.role == "system"]
        spoken = [one.content for one in said if one.role != "system"]
        found: list[Turn] = []
        for prompt, answer in zip(spoken[::2], spoken[1::2], strict=True):
            text = words.replace(PLACE, "\n\n".join([*system, prompt]) if not found else prompt)
            first = begin if not found else []
            found.append(Turn(first + tokens(text), [*tokens(answer), tokenizer.eos_token_id]))
        return found

    return turns


def _chat(
    tokenizer: Any, tokens: Callable[[str], list[int]], said: Sequence[Message], path: str
) -> list[Turn]:
    """Turns by the model's own template; an answer ends with what the template puts behind it, or EOS."""

    def shown(number: int, asks: bool) -> str:
        messages = [one._asdict() for one in said[:number]]
        # Reasoning models open and close their reasoning before the answer: it belongs to the prompt.
        options = {"add_generation_prompt": asks, "enable_thinking": False}
        return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))

    found: list[Turn] = []
    done = ""
    for i, one in enumerate(said):
        if one.role != "assistant":
            continue
        before, after = shown(i, True), shown(i + 1, False)
        content = one.content if after.startswith(before + one.content) else one.content.strip()
        if not before.startswith(done) or not after.startswith(before + content):
            raise UserError(
                f"task.template: the chat template of {path} changes what was said before, so that answers "
                f"cannot be told from it; take alpaca_short"
            )
        rest = tokens(after[len(before) + len(content) :])
        end = rest[0] if rest and rest[0] in tokenizer.all_special_ids else tokenizer.eos_token_id
        behind = found[-1].answer[-1:] if found else []
        between = tokens(before[len(done) :])
        # The end of the last answer is learned there, and not said twice.
        between = between[1:] if behind and between[:1] == behind else between
        found.append(Turn(between, [*tokens(content), end]))
        done = before + content
    return found


def last_alone(turns: Sequence[Turn]) -> list[Turn]:
    """The same tokens, of which the last answer alone is learned."""
    *earlier, last = turns
    return [Turn([token for turn in earlier for part in turn for token in part] + last.before, last.answer)]


def beginning(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """What stays at the beginning of a row that is cut: the token with which all texts begin, if any."""
    return list(ids[:1]) if list(ids[:1]) == [tokenizer.bos_token_id] else []


def asked(turns: Sequence[Turn], most: int, tokenizer: Any) -> list[int]:
    """All before the last answer, cut from the left so that one more token fits.

    Args:
        turns: From `turns_of`.
        most: Tokens of a row.
        tokenizer: The model's.
    """
    ids = last_alone(turns)[0].before
    keep = beginning(tokenizer, ids)
    return ids if len(ids) < most else [*keep, *ids[len(ids) - (most - 1 - len(keep)) :]]


def sequenced(turns: Sequence[Turn], most: int, keep: Sequence[int], at: str) -> Sequenced:
    """Turns as one row of at most so many tokens: cut from the left, never in the last answer.

    An earlier answer that is cut is no longer learned.

    Args:
        turns: From `turns_of`.
        most: Tokens of a row.
        keep: Tokens with which every row begins.
        at: What the example is called.

    Raises:
        UserError: If the last answer does not fit with one token before it.
    """
    *_, last = turns
    room = most - len(keep)
    if len(last.answer) >= room:
        raise UserError(
            f"{at}: the answer has {len(last.answer)} tokens with its end, which leaves nothing of "
            f"model.max_length {most} for the prompt; raise it, or leave the row out"
        )
    ids = [token for turn in turns for part in turn for token in part]
    learned = [flag for turn in turns for flag, part in zip((False, True), turn, strict=True) for _ in part]
    if learned[0]:
        raise UserError(
            f"{at}: the prompt has no tokens, so that nothing stands before the answer; fill it in"
        )
    if len(ids) <= most:
        return Sequenced(ids, learned, False)
    start = place = len(ids) - room
    while learned[place]:
        learned[place] = False
        place += 1
    return Sequenced([*keep, *ids[start:]], [*(False for _ in keep), *learned[start:]], True)
