"""Writing answers with a causal language model: what decoding one by one and stacked have in common.

What is drawn depends on (seed, round, client, prompt, place in the answer) alone: an answer is the same in
any company and order, and after a resume, up to rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from fedpl.errors import UserError
from fedpl.randomness import derive_seed
from fedpl.tasks.decoding import DecodingConfig
from fedpl.training.dropout import stream_keys

_MARGIN = 8  # tokens before a stop text, so that it is decoded as it is in the middle of an answer


def prompt_stream(seed: int, round: int, client: str, prompt: int) -> int:
    """Seed of what is drawn for one prompt.

    Args:
        seed: The run's seed.
        round: Number of the round.
        client: Client id.
        prompt: The prompt's place among the client's own.
    """
    return derive_seed(seed, f"decoding-{prompt}", round, client)


@dataclass(frozen=True)
class Ends:
    """Where answers end.

    Attributes:
        tokens: Each of them ends an answer.
        stop: So does each of these texts.
        tokenizer: Makes text of tokens; needed for `stop`.
    """

    tokens: tuple[int, ...]
    stop: tuple[str, ...] = ()
    tokenizer: PreTrainedTokenizerBase | None = None

    @staticmethod
    def of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: DecodingConfig) -> "Ends":
        """The tokenizer's end and those that the model's authors name, with the texts of the settings."""
        named = getattr(model.generation_config, "eos_token_id", None)
        found = {tokenizer.eos_token_id, *(named if isinstance(named, list | tuple) else [named])} - {None}
        return Ends(tuple(sorted(found)), settings.stop, tokenizer)

    def reached(self, answer: Sequence[int]) -> bool:
        """Whether an answer ends with its last token; asked after each token."""
        return answer[-1] in self.tokens or self.stopped(answer)

    def stopped(self, answer: Sequence[int]) -> bool:
        """Whether one of the texts is complete with the last token."""
        if not self.stop:
            return False
        assert self.tokenizer is not None
        window = max(len(text.encode()) for text in self.stop) + _MARGIN
        last = str(self.tokenizer.decode(list(answer[-window:]), clean_up_tokenization_spaces=False))
        return any(text in last for text in self.stop)

    def cut(self, answer: Sequence[int]) -> list[int]:
        """An answer up to its end, which is kept; what follows is padding, whatever its tokens are."""
        length = next((n for n in range(1, len(answer)) if self.reached(answer[:n])), len(answer))
        return list(answer[:length])

    def text(self, answer: Sequence[int]) -> str:
        """An answer as text, without what ended it and without other special tokens."""
        assert self.tokenizer is not None
        words = [token for token in answer if token not in self.tokens]
        text = str(self.tokenizer.decode(words, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        return text[: min((at for stop in self.stop if (at := text.find(stop)) >= 0), default=len(text))]


def chosen(
    logits: Float[Tensor, "rows vocabulary"],
    settings: DecodingConfig,
    streams: Sequence[int],
    places: Int[np.ndarray, "rows"],
) -> Int[Tensor, "rows"]:
    """The next token of each row.

    Args:
        logits: Of the next token.
        settings: How to choose.
        streams: Seed of what is drawn for each row.
        places: Of the token in each row's answer, from 0.
    """
    if settings.temperature == 0:
        return logits.argmax(-1)
    scores: Tensor = TemperatureLogitsWarper(settings.temperature)(None, logits.float())
    if settings.top_k:
        scores = TopKLogitsWarper(settings.top_k)(None, scores)
    if settings.top_p < 1:
        scores = TopPLogitsWarper(settings.top_p)(None, scores)
    keys = stream_keys(np.array(streams, np.uint64), 0, places).view(np.uint32)
    drawn = torch.from_numpy((keys + 0.5) / 2**32).to(scores.device)[:, None]
    # In the order of the vocabulary: that of the likeliest would turn at a rounding.
    sums = scores.double().softmax(-1).cumsum(-1)
    return torch.searchsorted(sums, drawn * sums[:, -1:], right=True).squeeze(1)


def check_room(model: PreTrainedModel, prompts: Sequence[Sequence[int]], settings: DecodingConfig) -> None:
    """Refuse what a model cannot write, before any of it is written.

    Raises:
        ValueError: If a prompt is empty.
        UserError: If the longest prompt and its answer have no place in the model.
    """
    if any(not len(prompt) for prompt in prompts):
        raise ValueError("expected prompts of at least one token, got an empty one")
    room = getattr(model.config, "max_position_embeddings", None)
    longest = max(map(len, prompts), default=0)
    if room is not None and longest + settings.max_new_tokens > room:
        raise UserError(
            f"decoding.max_new_tokens: a prompt of {longest} tokens and an answer of "
            f"{settings.max_new_tokens} do not fit in the model's {room} positions; lower it, or "
            f"model.max_length"
        )


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as rows that end together, and where their tokens are."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    real = torch.zeros(len(prompts), width, dtype=torch.int64)
    for row, mask, prompt in zip(ids, real, prompts, strict=True):
        row[width - len(prompt) :] = torch.as_tensor(prompt)
        mask[width - len(prompt) :] = 1
    return ids.to(device), real.to(device)


@torch.no_grad()
def generated(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodingConfig,
    ends: Ends,
    streams: Sequence[int],
) -> list[list[int]]:
    """Answers to prompts that begin and end together, by transformers' own `generate`."""
    ids, real = padded(prompts, model.device)
    width = ids.shape[1]
    processors = LogitsProcessorList([_Drawn(settings, streams, width)] if settings.temperature else [])
    criteria = StoppingCriteriaList([_Stops(ends, width)] if ends.stop else [])
    with _configured(model, settings, ends):
        found = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=real, logits_processor=processors, stopping_criteria=criteria
        )
    return [ends.cut(answer) for answer in found[:, width:].tolist()]


class _Drawn(LogitsProcessor):
    """Leaves one token, which has been drawn."""

    def __init__(self, settings: DecodingConfig, streams: Sequence[int], width: int) -> None:
        self.settings, self.streams, self.width = settings, streams, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        places = np.full(len(scores), input_ids.shape[1] - self.width)
        tokens = chosen(scores, self.settings, self.streams, places)
        return torch.full_like(scores, float("-inf")).scatter_(1, tokens[:, None], 0.0)


class _Stops(StoppingCriteria):
    """Rows end at the texts that end answers."""

    def __init__(self, ends: Ends, width: int) -> None:
        self.ends, self.width = ends, width

    def __call__(self, input_ids: Tensor, scores: Tensor | None, **_: object) -> Bool[Tensor, "rows"]:
        answers = input_ids[:, self.width :].tolist()
        return torch.tensor([self.ends.stopped(answer) for answer in answers], device=input_ids.device)


@contextmanager
def _configured(model: PreTrainedModel, settings: DecodingConfig, ends: Ends) -> Iterator[None]:
    """Within it these settings alone hold: models bring defaults (penalties, sampling) of their own."""
    kept = model.generation_config
    model.generation_config = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.beams,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(ends.tokens) or None,
        pad_token_id=ends.tokens[0] if ends.tokens else 0,
    )
    try:
        yield
    finally:
        model.generation_config = kept
