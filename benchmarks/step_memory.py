"""``python -m benchmarks.step_memory``: what the vocabulary costs in a step of a causal language model.

One step of 8 clients × 8 rows of 70 tokens, 10 of them answers, through a random model of the shape of
SmolLM2-135M: once with its vocabulary of 49,152, once with one of 258. Each in a process of its own; what is
compared is the most memory beyond what the loaded model takes.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.growth.parts import Parts
from benchmarks.machine import describe
from fedpl.files import write_json

RESULTS = Path(__file__).parent / "results" / "step_memory.json"
VOCABULARIES = {"whole": 49_152, "bytes": 258}
CLIENTS, ROWS, TOKENS, ANSWER = 8, 8, 70, 10


def peak(vocabulary: int, folder: Path) -> int:
    """Bytes that a run of one step takes beyond the loaded model.

    Args:
        vocabulary: Tokens that the model knows.
        folder: For model, data and run.
    """
    from rich.console import Console

    from fedpl.config import Config, with_changes
    from fedpl.data import Columns, TextFiles
    from fedpl.runs.experiment import run
    from fedpl.runs.prepared import prepare

    _write_model(folder / "model", vocabulary)
    table = folder / "rows.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    config = with_changes(
        Config(data=TextFiles((str(table),), Columns(prompt="prompt", answer="answer", split="split"))),
        {
            "task": {"class_path": "fedpl.tasks.Generation", "init_args": {"template": "{prompt}"}},
            "model.path": str(folder / "model"),
            "client.epochs": 1,
            "client.batch_size": ROWS,
            "client.tokens_per_pass": CLIENTS * ROWS * TOKENS,
            "client.cohort_size": CLIENTS,
            "client.prefix_cache_mb": 0,
            "rounds": 1,
            "evaluation.every": 0,
            "accelerator": "cpu",
            "baselines": [],
            "tracking.plots": False,
            "tracking.wandb.mode": "disabled",
            "run_dir": str(folder / "run"),
        },
    )
    prepared = prepare(config)
    parts = Parts()
    run(config, Console(quiet=True), prepared=prepared)
    parts.peak("run")
    return parts.peaks["run"]


def _rows() -> list[dict[str, str]]:
    stream = random.Random(0)
    found = []
    for client in range(CLIENTS):
        for i in range(ROWS + 2):
            split = "train" if i < ROWS else ("validation", "test")[i - ROWS]
            # A token a byte, and one for the end of the answer.
            prompt = "".join(stream.choices("abcdefgh ", k=TOKENS - ANSWER))
            answer = "".join(stream.choices("klmnopqr", k=ANSWER - 1))
            found.append({"client": f"c{client}", "prompt": prompt, "answer": answer, "split": split})
    return found


def _write_model(folder: Path, vocabulary: int) -> None:
    """A random model with a tokenizer of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from benchmarks.cohort.causal import shape

    words = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(folder)
    AutoModelForCausalLM.from_config(shape(vocabulary)).save_pretrained(folder)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_memory", description=__doc__)
    parser.add_argument("--vocabulary", type=int, help="measure this one alone, and print it")
    options = parser.parse_args(argv)
    if options.vocabulary:
        with TemporaryDirectory() as folder:
            print(peak(options.vocabulary, Path(folder)))
        return
    found: dict[str, int] = {}
    for name, size in VOCABULARIES.items():
        command = [sys.executable, "-m", "benchmarks.step_memory", "--vocabulary", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = int(done.stdout.splitlines()[-1])
        print(f"{name}: {found[name] / 2**20:,.0f} MiB")
    ratio = found["whole"] / found["bytes"]
    print(f"a step with the whole vocabulary takes {ratio:.2f} times the memory")
    step = {"clients": CLIENTS, "rows": ROWS, "tokens": TOKENS, "answer": ANSWER}
    write_json(
        RESULTS, {**describe(), "step": step, "vocabularies": VOCABULARIES, "bytes": found, "ratio": ratio}
    )


if __name__ == "__main__":
    main()
