from pathlib import Path

import pytest
import torch

from fedpl.clients.batches import Tokens, batch_order, evaluation_batches, training_batches
from fedpl.clients.model import load_tokenizer
from fedpl.config import ModelConfig
from fedpl.data import Split


@pytest.fixture
def tokens(small_model: Path) -> Tokens:
    texts = tuple(" ".join(["the", "crew", "was", "good"] * (1 + i % 3)) for i in range(10))
    split = Split(texts, tuple(i % 2 for i in range(10)))
    return Tokens(split, load_tokenizer(ModelConfig(path=str(small_model))), max_length=9)


def test_batches_are_padded_to_their_longest(tokens: Tokens) -> None:
    batch = tokens.collate([0, 1])
    assert batch["input_ids"].shape == (2, 8)
    assert batch["attention_mask"].sum(1).tolist() == [4, 8]
    assert batch["input_ids"][0, 4:].tolist() == [0] * 4
    assert batch["labels"].tolist() == [0, 1]


def test_long_texts_are_cut(tokens: Tokens) -> None:
    assert max(len(ids) for ids in tokens.ids) == 9


def test_the_seed_decides_the_order_and_epochs_differ(tokens: Tokens) -> None:
    def epochs(seed: int) -> list[list[int]]:
        torch.rand(3)  # the global stream must not matter
        labels = [batch["labels"] for batch in training_batches(tokens, batch_order(10, 4, 2, seed))]
        return [torch.cat(part).tolist() for part in (labels[:3], labels[3:])]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    assert epochs(1)[0] != epochs(1)[1]
    assert sorted(epochs(1)[0]) == [0] * 5 + [1] * 5


def test_evaluation_visits_everything_once_short_texts_first(tokens: Tokens) -> None:
    batches = list(evaluation_batches(tokens, 4))
    assert [len(batch["labels"]) for batch in batches] == [4, 4, 2]
    assert sum(len(batch["labels"]) for batch in batches) == 10
    widths = [batch["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)
