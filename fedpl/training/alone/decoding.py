"""Answers one prompt after another: slow and plain, what stacked decoding is held against."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from fedpl.tasks.decoding import DecodingConfig
from fedpl.training.decoding import Ends, check_room, generated


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    settings: DecodingConfig,
    ends: Ends,
    streams: Sequence[int],
) -> list[list[int]]:
    """One client's answers.

    Args:
        model: A causal language model in which PEFT has placed the client's adapter.
        prompts: Tokens, at least one each.
        settings: How to write.
        ends: Where answers end.
        streams: Seed of what is drawn for each prompt, from `prompt_stream`.

    Returns:
        New tokens of each answer, with the one that ended it, if one did.

    Raises:
        UserError: If a prompt and its answer have no place in the model.
    """
    check_room(model, prompts, settings)
    model.eval()
    return [
        answer
        for prompt, stream in zip(prompts, streams, strict=True)
        for answer in generated(model, [prompt], settings, ends, [stream])
    ]
