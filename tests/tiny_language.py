"""Causal language models and tokenizers small enough to be made in a test."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast

CHAT = (
    "{% for message in messages %}{{ '<s>' + message.role + '\n' + message.content + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIAL = ("<s>", "</s>")
VOCABULARY = len(BYTES) + len(SPECIAL)
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def tokenizer(folder: Path, begins: bool = False) -> None:
    """A tokenizer of single bytes whose padding is its end token, written into a folder.

    Args:
        folder: Where.
        begins: Whether texts begin with ``<s>``.
    """
    made = Tokenizer(models.BPE({word: i for i, word in enumerate((*SPECIAL, *BYTES))}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    if begins:
        fast.add_bos_token = True
        fast.update_post_processor()
    fast.chat_template = CHAT
    fast.save_pretrained(folder)


def language_model(folder: Path, config: PretrainedConfig | None = None, begins: bool = False) -> Path:
    """A random model with its tokenizer in a folder, in Hugging Face layout."""
    config = config or LlamaConfig(**LLAMA, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer(folder, begins)
    return folder


def rows(client: str, answers: tuple[str, str], tested: bool = True) -> list[dict[str, str]]:
    """A client's prompts with two answers by turns, and their declared splits."""
    stream = random.Random(client)
    splits = ("train",) * 8 + (("validation",) * 2 + ("test",) * 2 if tested else ())
    found = []
    for i, split in enumerate(splits):
        prompt = "".join(stream.choices("abcdefgh ", k=12)) + "?"
        found.append({"prompt": prompt, "answer": answers[i % 2], "client": client, "split": split})
    return found
