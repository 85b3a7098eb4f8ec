"""The stacked model answers each row as the row's own PEFT adapter does, and learns the same gradients."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
)

from fedpl.config import ClientConfig
from fedpl.errors import UserError
from fedpl.model.adapter import flatten, layout_of, trainable, unflatten
from fedpl.model.base import PooledClassifier
from fedpl.training import segments
from fedpl.training.stacked.engine import Engine
from fedpl.training.stacked.packing import Limits, Row, pack
from fedpl.training.stacked.stack import Stack
from tests.training.stacked.test_packing import learner
from tests.waits import Operations

SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def bert() -> PreTrainedModel:
    return BertModel(BertConfig(**SMALL, intermediate_size=24))


def llama() -> PreTrainedModel:
    config = LlamaConfig(**SMALL, intermediate_size=24, num_key_value_heads=1)
    return LlamaModel(config)


def gpt2() -> PreTrainedModel:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1)
    return GPT2Model(config)


def adapted(encoder: PreTrainedModel, pooling: str = "mean", **options: object) -> PeftModel:
    torch.manual_seed(0)
    settings = {"r": 3, "lora_alpha": 7, "modules_to_save": ["head"]} | options
    return get_peft_model(PooledClassifier(encoder, 3, pooling), LoraConfig(**settings)).eval()


CASES = {
    "bert": lambda: adapted(bert(), target_modules=["query", "value"]),
    "bert-all-linear": lambda: adapted(bert(), target_modules=["query", "dense"]),
    "bert-pattern": lambda: adapted(bert(), target_modules=r".*\.1\..*(query|key)"),
    "bert-ranks": lambda: adapted(
        bert(), target_modules=["query", "value"], rank_pattern={"query": 5}, alpha_pattern={"value": 2}
    ),
    "bert-rslora": lambda: adapted(bert(), target_modules=["query"], use_rslora=True),
    "bert-last-block": lambda: adapted(bert(), target_modules=["query"], layers_to_transform=[1]),
    "bert-frozen-head": lambda: adapted(bert(), target_modules=["query"], modules_to_save=None),
    "gpt2-conv1d": lambda: adapted(gpt2(), "last", target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
    "llama": lambda: adapted(llama(), "last", target_modules=["q_proj", "v_proj", "down_proj"]),
    "llama-last-block": lambda: adapted(llama(), "last", target_modules=["q_proj"], layers_to_transform=[1]),
}


def adapters(model: PeftModel, number: int) -> Tensor:
    return 0.3 * torch.randn(number, layout_of(model).size, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:.*gradient layout contract")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("owners", "even"), [((2, 0, 2, 1, 1, 2), None), ((2, 1, 0, 1, 2, 0), (0, 3)), ((2, 2, 1, 1), (1, 3))]
)
def test_rows_equal_their_own_adapter(
    name: str, owners: tuple[int, ...], even: tuple[int, int] | None
) -> None:
    model = CASES[name]()
    layout, theta = layout_of(model), adapters(model, 3)
    engine = Engine(model, layout, ClientConfig())
    gradient = torch.zeros_like(theta)
    engine.stack.bind(theta, gradient)
    source = learner([3, 1, 4, 1, 5, 9], 0, 1).examples
    rows = [Row(client, source, i) for i, client in enumerate(owners)]
    (part,) = pack(rows, Limits(1000, 1000))
    assert part.even == even
    for _ in range(2):  # the second time from the cache of the prefix, where there is one
        gradient.zero_()
        logits = engine(part, cache=True)
        logits.square().sum().backward()
        for client in range(3):
            unflatten(theta[client], model, layout)
            model.zero_grad()
            own = part.client == client
            if not own.any():
                assert not gradient[client].any()
                continue
            expected = model(
                input_ids=part.inputs["input_ids"][own], attention_mask=part.inputs["attention_mask"][own]
            )
            torch.testing.assert_close(logits[own], expected)
            expected.square().sum().backward()
            parts = [trainable(model)[entry.name] for entry in layout.entries]
            # BERT's own pooler is adapted by the name "dense" but unused here.
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parts]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            rounding = max(1e-5, 1e-6 * float(flat.abs().max()))  # an entry near 0 is a sum of large parts
            torch.testing.assert_close(gradient[client], flat, rtol=1e-4, atol=rounding)


@pytest.mark.filterwarnings("ignore:.*gradient layout contract")
@pytest.mark.parametrize("name", ["bert-all-linear", "gpt2-conv1d"])
def test_no_order_of_threads_decides_about_gradients(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `index_add_` has no order, uneven passes do without it, and learn the same bit for bit."""
    model = CASES[name]()
    theta = adapters(model, 5)
    source = learner([3, 1, 4, 1, 5, 9], 0, 1).examples
    rows = [Row(client, source, i) for i, client in enumerate((3, 0, 3, 1, 1, 3))]  # none of 2 and 4
    (part,) = pack(rows, Limits(1000, 1000))
    assert part.even is None
    found, added = [], []
    for ordered in (True, False):
        monkeypatch.setattr(segments, "_adds_in_order", lambda _, ordered=ordered: ordered)
        gradient, losses = torch.zeros_like(theta), torch.full((5,), 0.5)
        stack = Stack(model, layout_of(model))
        stack.bind(theta, gradient)
        with Operations() as operations:
            loss = stack(part.client, part.inputs).square().sum(1)
            loss.sum().backward()
            segments.add_by_client(losses, part.client, loss.detach())
        added.append(sum(n for op, n in operations.seen.items() if "index_add" in str(op)))
        found.append((gradient, losses))
    assert added[0] > 0
    assert added[1] == 0
    assert found[1][0].equal(found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1])


def test_the_prefix_is_kept_and_recalled_without_an_operation_per_row() -> None:
    model = CASES["bert-last-block"]()
    layout, theta = layout_of(model), adapters(model, 2)

    def operations(rows: int) -> list[int]:
        engine = Engine(model, layout, ClientConfig())
        engine.stack.bind(theta)
        source = learner([3, 4] * rows, 0, 1).examples
        known, both = (
            pack([Row(i % 2, source, i) for i in range(number)], Limits(10**6, 10**6))[0]
            for number in (rows, 2 * rows)
        )
        found = []
        for part in (known, both, both):  # computed; half computed; recalled
            with Operations() as operations:
                engine(part, cache=True)
            found.append(operations.seen.total())
        return found

    assert operations(20) == operations(2)


@pytest.mark.parametrize("name", ["bert-ranks", "gpt2-conv1d"])
def test_rows_are_peft_adapters_exactly(name: str) -> None:
    model = CASES[name]()
    layout, theta = layout_of(model), adapters(model, 2)
    stack = Stack(model, layout)
    stack.bind(theta)
    back = torch.empty(layout.size)
    for client in range(2):
        unflatten(theta[client], model, layout)
        flatten(model, layout, back)
        assert back.equal(theta[client])
        for entry, value in ((e, trainable(model)[e.name]) for e in layout.entries):
            home, attribute = stack._homes[entry.name]
            assert getattr(home, attribute)[client].equal(value)


def test_clients_with_fewer_classes() -> None:
    model = CASES["bert"]()
    layout, theta = layout_of(model), adapters(model, 2)
    engine = Engine(model, layout, ClientConfig())
    gradient = torch.zeros_like(theta)
    engine.stack.bind(theta, gradient)
    engine.set_classes([(0, 1), None])
    source = learner([3, 4], 0, 1).examples
    (part,) = pack([Row(0, source, 0), Row(1, source, 1)], Limits(1000, 1000))
    logits = engine(part, cache=False)
    assert logits.isinf().tolist() == [[False, False, True], [False, False, False]]
    nn.functional.cross_entropy(logits, torch.tensor([1, 2]), reduction="sum").backward()
    assert gradient.isfinite().all()
    head = next(e for e in layout.entries if e.name == "head.weight")
    unused = gradient[:, head.start : head.stop].view(2, *head.shape)[:, 2]
    assert not unused[0].any()
    assert unused[1].any()
    engine.set_classes([None, None])
    assert engine(part, cache=False).isfinite().all()


def test_one_clients_nan_stays_its_own() -> None:
    model = CASES["bert"]()
    theta = adapters(model, 2)
    theta[0, 0] = torch.nan
    stack = Stack(model, layout_of(model))
    gradient = torch.zeros_like(theta)
    stack.bind(theta, gradient)
    source = learner([3, 4], 0, 1).examples
    (part,) = pack([Row(0, source, 0), Row(1, source, 1)], Limits(1000, 1000))
    stack(part.client, part.inputs).sum().backward()
    assert gradient[0].isnan().any()
    assert gradient[1].isfinite().all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["LayerNorm"]}, "modules_to_save"),
        ({"target_modules": ["word_embeddings"]}, "target_modules"),
        ({"layers_to_transform": [1], "use_dora": True, "bias": "all"}, "use_dora, bias='all'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stacked_is_named(options: dict[str, object], named: str) -> None:
    model = adapted(bert(), **({"target_modules": ["query"]} | options))
    with pytest.raises(UserError, match="cohort_size to 1") as error:
        Stack(model, layout_of(model))
    assert named in str(error.value)


def test_rows_of_another_length_are_refused() -> None:
    model = CASES["bert"]()
    with pytest.raises(ValueError, match="parameters, got 5"):
        Stack(model, layout_of(model)).bind(torch.zeros(2, 5))
