"""What a language model is given and asked: tokens, masks and targets written out, scores, floors."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig

from fedpl.config import ModelConfig
from fedpl.data import ClientData, Dialogues, FederatedData, Message, Split
from fedpl.data.dialogues import Example, dialogues, exchange
from fedpl.errors import UserError
from fedpl.tasks import Choice, Classification, Generation
from fedpl.tasks.metrics import best_constant, generation_scores
from tests.tiny_language import LLAMA, VOCABULARY, language_model

THREE = ("alpaca", "alpaca_short", "chat", "Q: {prompt} {A}: ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = {**LLAMA, "max_position_embeddings": 512}
    config = LlamaConfig(**shape, vocab_size=VOCABULARY)
    return language_model(tmp_path_factory.mktemp("model"), config, begins=True)


@pytest.fixture
def model(folder: Path) -> ModelConfig:
    return ModelConfig(path=str(folder), max_length=400)


def split(*pairs: tuple[str, str], options: tuple[str, ...] = ()) -> Dialogues:
    rows = [Example(prompt, messages=exchange(prompt, answer), options=options) for prompt, answer in pairs]
    return dialogues(rows, range(len(rows)), "c")


def told(*said: str) -> Dialogues:
    messages = tuple(Message(*one.split(": ", 1)) for one in said)
    return dialogues([Example("", messages=messages)], [0], "c")


def learned(examples: Any, place: int, tokenizer: Any) -> str:
    inputs = examples.collate([place]).inputs
    return str(tokenizer.decode(inputs["input_ids"][inputs["learned"]]))


def test_two_prompts_written_out(model: ModelConfig, folder: Path) -> None:
    """Ids, attention, learned positions, targets and weights, with padding by the end token itself."""
    ids = {c: AutoTokenizer.from_pretrained(folder)(c)["input_ids"][1] for c in "abnoQ:"}
    examples = Generation("Q:{prompt}").encoder(model)(split(("a", "no"), ("b", "b")))
    batch = examples.collate([0, 1])
    begin, end = 0, 1
    expected = [
        [begin, ids["Q"], ids[":"], ids["a"], ids["n"], ids["o"], end],
        [begin, ids["Q"], ids[":"], ids["b"], ids["b"], end, end],
    ]
    assert batch.inputs["input_ids"].tolist() == expected
    assert batch.inputs["attention_mask"].tolist() == [[1] * 7, [1] * 6 + [0]]
    assert batch.inputs["learned"].int().tolist() == [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0]]
    assert batch.targets.tolist() == [[3], [2]]
    assert examples.mass == (3.0, 2.0)
    assert examples.weights([0, 1]) == [0.6, 0.4]


@pytest.mark.parametrize("template", THREE)
def test_what_is_learned_is_the_answer_and_its_end(template: str, model: ModelConfig, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token == tokenizer.eos_token == "</s>"
    answers = ("no", "a longer answer, with {prompt} and </s>?", "é")
    examples = Generation(template).encoder(model)(split(*((f"prompt {a}", a) for a in answers)))
    for i, answer in enumerate(answers):
        assert learned(examples, i, tokenizer) == f"{answer}</s>"
        assert examples.ids[i][-1] == 1, "nothing follows"
    together = examples.collate([0, 1, 2]).inputs
    assert together["learned"].sum(1).tolist() == list(examples.mass)


@pytest.mark.parametrize("template", THREE)
def test_every_assistants_turn_is_learned(template: str, model: ModelConfig, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = told("system: be kind", "user: yes or no?", "assistant: yes", "user: sure?", "assistant: I am")
    examples = Generation(template).encoder(model)(row)
    assert learned(examples, 0, tokenizer) == "yes</s>I am</s>"
    text = tokenizer.decode(examples.ids[0])
    if template == "chat":  # as the model's template writes it, to the last end
        messages = [one._asdict() for one in row.messages[0]]
        assert text == tokenizer.apply_chat_template(messages, tokenize=False).rstrip()
    assert text.index("be kind") < text.index("yes or no?") < text.index("sure?")


def test_prompts_are_cut_from_the_left_and_answers_never(model: ModelConfig, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    short = replace(model, max_length=12)
    examples = Generation("{prompt}").encoder(short)(split(("0123456789abcdef", "an"), ("b", "an")))
    assert tokenizer.decode(examples.ids[0]) == "<s>89abcdefan</s>"
    assert (examples.lengths, examples.cut) == ((12, 5), 1)
    talk = told("user: 0123", "assistant: answer", "user: ?", "assistant: yes")
    examples = Generation("{prompt}").encoder(short)(talk)
    assert tokenizer.decode(examples.ids[0]) == "<s>nswer</s>?yes</s>"
    assert learned(examples, 0, tokenizer) == "yes</s>", "half an answer is not learned"
    with pytest.raises(UserError, match=r"client 'c', its row 2: the answer has 12 tokens .*max_length 12"):
        Generation("{prompt}").encoder(short)(split(("a", "b"), ("a", "answer, 11!")))


def test_questions_are_the_prompts_that_were_trained(model: ModelConfig, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ask = Generation("Q: {prompt} A: ").questions(model)
    found = ask(split(("a", "no"), ("b", "yes")))
    assert [tokenizer.decode(ids) for ids in found.ids] == ["<s>Q: a A: ", "<s>Q: b A: "]
    assert found.references == ("no", "yes")
    assert found.ends == (1,)
    cut = Generation("Q: {prompt} A: ").questions(replace(model, max_length=9))(split(("0123", "no")))
    assert [tokenizer.decode(ids) for ids in cut.ids] == ["<s>123 A: "]
    broken = Generation(r"Q: {prompt}\nA: ").questions(model)(split(("a", "no")))
    assert tokenizer.decode(broken.ids[0]) == "<s>Q: a\nA: "


def test_a_template_that_changes_what_was_said_is_refused(model: ModelConfig, tmp_path: Path) -> None:
    language_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.chat_template = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="changes what was said before"):
        Generation("chat").encoder(replace(model, path=str(tmp_path)))(split(("a", "b")))
    tokenizer.chat_template = None
    (tmp_path / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="no chat template"):
        Generation("chat").encoder(replace(model, path=str(tmp_path)))


OPTIONS = ("yes", "no, never", "maybe")


def test_options_are_scored_each_and_the_right_one_is_trained(model: ModelConfig, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = split(("a", "maybe"), ("b", "yes"), options=OPTIONS)
    encode = Choice("{prompt}").encoder(model)
    trained, scored = encode(rows), encode(rows, True)
    assert [learned(trained, i, tokenizer) for i in range(2)] == ["maybe</s>", "yes</s>"]
    assert [learned(scored, i, tokenizer) for i in range(6)] == [f"{option}</s>" for option in OPTIONS * 2]
    assert scored.targets[:, 1:].tolist() == [[i // 3, i % 3, 2 - i // 3 * 2] for i in range(6)]


def test_of_a_conversation_the_last_answer_is_chosen(model: ModelConfig, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    row = replace(told("user: a", "assistant: yes", "user: b", "assistant: no"), options=(("no", "yes"),))
    trained, scored = (Choice("{prompt}").encoder(model)(row, wanted) for wanted in (False, True))
    assert learned(trained, 0, tokenizer) == "yes</s>no</s>"
    assert [learned(scored, i, tokenizer) for i in range(2)] == ["no</s>", "yes</s>"]
    assert trained.ids[0].equal(scored.ids[0])


def accuracy(task: Choice, rows: Sequence[tuple[list[int], float]]) -> float:
    return task.score([row for row, _ in rows], [value for _, value in rows])["accuracy"]


def test_the_likeliest_option_is_the_answer() -> None:
    rows = [([2, 0, 0, 1], -5.0), ([9, 0, 1, 1], -7.0), ([1, 1, 0, 0], -1.0), ([3, 1, 1, 0], -1.0)]
    assert accuracy(Choice(), rows) == 0.5, "the first one wins where two are equal"
    assert accuracy(Choice(normalise=True), rows) == 0.5
    assert accuracy(Choice(normalise=True), rows[:2]) == 1.0
    assert accuracy(Choice(), rows[::-1]) == 0.5
    assert accuracy(Choice(), [([1, 0, 0, -1], -1.0)]) == 0.0


def test_options_from_the_training_answers() -> None:
    train, test = split(("a", "x"), ("b", "y"), ("c", "x")), split(("d", "y"), ("e", "z"))
    data = FederatedData((ClientData("c", train, split(), test),), ())
    found = Choice().take(data)
    (client,) = found.clients
    assert client.train.options == (("x", "y"),) * 3
    assert client.train.labels == (0, 1, 0)
    assert client.test.labels == (1, -1)
    assert "answers in each client's training data" in found.notes[0]
    assert "1 validation or test examples have an answer that is none" in found.notes[1]
    with pytest.raises(UserError, match="client 'c' has one answer alone"):
        Choice().take(FederatedData((ClientData("c", split(("a", "x")), split(), test),), ()))


def test_data_of_another_kind_are_refused() -> None:
    labelled = FederatedData((ClientData("c", *(Split(("a",), (0,)),) * 3),), ("x",))
    words = FederatedData((ClientData("c", *(split(("a", "b")),) * 3),), ())
    with pytest.raises(UserError, match=r"data\.columns\.prompt"):
        Generation().take(labelled)
    with pytest.raises(UserError, match=r"fedpl\.tasks\.Generation"):
        Classification().take(words)


def test_floors(model: ModelConfig) -> None:
    """By frequency of tokens; and the answer most frequent in training."""
    train, test = split(("p", "aa"), ("p", "b")), split(("p", "ac"), ("p", "b"))
    client = ClientData("c", train, split(), test)
    task = Generation("{prompt}")
    encode = task.encoder(model)
    # Training: a 2, b 1, end 2; one more place for whatever is new. Test: a, c, end, b, end.
    total = 2 + 1 + 2 + 3 + 1
    expected = -sum(math.log(times / total) for times in (3, 1, 3, 2, 3)) / 5
    found = task.floor(client, encode(train), encode(test, True))
    assert found["loss"] == pytest.approx(expected)
    assert found["perplexity"] == pytest.approx(math.exp(expected))
    chosen = Choice().take(FederatedData((replace(client, test=split(("p", "b"), ("p", "aa"))),), ()))
    floor = Choice().floor(chosen.clients[0], encode(train), encode(test))
    assert floor == {"accuracy": 0.5}


def test_scores_of_decoded_answers() -> None:
    found = generation_scores(["the cat sat", "yes"], ["the cat  sat ", "no"])
    assert found == {"rouge1": 0.5, "rouge2": 0.5, "rougeL": 0.5, "exact_match": 0.5}
    assert list(found) == [metric.name for metric in Generation.decoded]
    assert generation_scores(["a b"], ["a"])["rouge1"] == pytest.approx(2 / 3)
    assert generation_scores(["cats run"], ["cat runs"])["rouge1"] == 0, "no stemming"
    assert best_constant(["yes"] * 3 + ["no way"]) == "yes"
    assert set(best_constant(["the red", "the blue", "the old one"]).split()) >= {"the"}
    train, test = split(("p", "yes"), ("q", "yes"), ("r", "no")), split(("p", "yes"), ("q", "no"))
    assert Generation().floor_decoded(ClientData("c", train, split(), test))["exact_match"] == 0.5


def test_losses_are_means_over_tokens() -> None:
    found = Generation().losses(torch.tensor([-6.0, -1.0]), torch.tensor([[3], [2]]))
    assert found.tolist() == [2.0, 0.5]
    assert Generation().score([[3], [1]], [-6.0, -2.0])["loss"] == 2.0
