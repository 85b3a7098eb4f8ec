from pathlib import Path

import pytest
import torch

from fedpl.config import ModelConfig
from fedpl.data import Split
from fedpl.errors import UserError
from fedpl.tasks import Classification
from fedpl.tasks.encoding import check_known
from fedpl.tasks.examples import Examples, Sequences
from fedpl.training.batches import batch_order, evaluation_order, training_batches


@pytest.fixture
def tokens(small_model: Path) -> Examples:
    texts = tuple(" ".join(["the", "crew", "was", "good"] * (1 + i % 3)) for i in range(10))
    split = Split(texts, tuple(i % 2 for i in range(10)))
    return Classification().encoder(ModelConfig(path=str(small_model), max_length=9))(split)


def test_batches_are_padded_to_their_longest(tokens: Examples) -> None:
    batch = tokens.collate([0, 1])
    assert batch.inputs["input_ids"].shape == (2, 8)
    assert batch.inputs["attention_mask"].sum(1).tolist() == [4, 8]
    assert batch.inputs["input_ids"][0, 4:].tolist() == [0] * 4
    assert batch.targets.tolist() == [0, 1]


def test_long_texts_are_cut(tokens: Examples) -> None:
    assert max(len(ids) for ids in tokens.ids) == 9


def test_the_seed_decides_the_order_and_epochs_differ(tokens: Examples) -> None:
    def epochs(seed: int) -> list[list[int]]:
        torch.rand(3)  # the global stream must not matter
        labels = [batch.targets for batch, _ in training_batches(tokens, batch_order(10, 4, 2, seed))]
        return [torch.cat(part).tolist() for part in (labels[:3], labels[3:])]

    assert epochs(1) == epochs(1)
    assert epochs(1) != epochs(2)
    assert epochs(1)[0] != epochs(1)[1]
    assert sorted(epochs(1)[0]) == [0] * 5 + [1] * 5


def test_evaluation_visits_everything_once_short_texts_first(tokens: Examples) -> None:
    batches = [tokens.collate(chosen) for chosen in evaluation_order(tokens, 4)]
    assert [len(batch.targets) for batch in batches] == [4, 4, 2]
    assert sum(len(batch.targets) for batch in batches) == 10
    widths = [batch.inputs["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)


def test_checking_words_does_not_search_the_vocabulary_for_each() -> None:
    """`unk_token_id` of transformers is a property that does: most of the time of preparing texts."""

    class Counted:
        all_special_ids = (0, 1)
        times = 0

        @property
        def unk_token_id(self) -> int:
            self.times += 1
            return 1

    tokenizer = Counted()
    check_known(tokenizer, Sequences.of([[0, *range(2, 40)]] * 50).flat, "here")
    with pytest.raises(UserError, match="does not know 60 % of the words"):
        check_known(tokenizer, Sequences.of([[0, 1, 1, 1, 2, 3]] * 50).flat, "here")
    assert tokenizer.times == 2
