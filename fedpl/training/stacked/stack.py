"""The adapters of K clients stacked in one model: their rows go through the frozen layers together."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PretrainedConfig

from fedpl.errors import UserError
from fedpl.model.adapter import ADAPTER, is_linear
from fedpl.model.quantised import is_quantised
from fedpl.records.layout import AdapterLayout
from fedpl.training.segments import select
from fedpl.training.stacked.stackable import REMEDY, refuse_unstackable


class Rows:
    """Whose the rows of the present batch are; one object, read by all stacked layers of a model.

    Attributes:
        client: The client of each row, as a place in the stack.
        even: If each client from one place up to another has the same number of rows, and they follow each
            other, these two places: then a client's rows are one group. Otherwise each row is a group.
        share: Of the clients' own adapters in every layer's output, where others stand beside them.
    """

    client: Int[Tensor, "rows"]
    even: tuple[int, int] | None = None
    share: Float[Tensor, "rows"] | float = 1.0

    def select(self, stack: Float[Tensor, "clients ..."]) -> Float[Tensor, "groups ..."]:
        """The tensors of each group's client: a view where the rows are even, else a copy per row."""
        if self.even is None:
            return select(stack, self.client)
        return stack[slice(*self.even)]

    def split(self, x: Float[Tensor, "..."]) -> Float[Tensor, "groups positions features"]:
        """A batch-first activation with one matrix per group."""
        if x.shape[0] % len(self.client):
            raise ValueError(
                f"expected activations of {len(self.client)} rows, got shape {tuple(x.shape)}; the model "
                f"does not keep the batch first: {REMEDY}"
            )
        groups = len(self.client) if self.even is None else self.even[1] - self.even[0]
        return x.reshape(groups, -1, x.shape[-1])

    def shares(self, x: Float[Tensor, "..."]) -> Float[Tensor, "groups positions 1"] | Float[Tensor, ""]:
        """The share at each position of a batch-first activation, or the one for all."""
        share = torch.as_tensor(self.share, device=x.device)
        if share.dim() == 0:
            return share
        return self.split(share.view(-1, *[1] * (x.dim() - 1)).expand(*x.shape[:-1], 1))


class StackedLora(nn.Module):
    """``base(x) + alpha / r · B A dropout(x)`` with each row's own A [K, r, in] and B [K, out, r].

    Args:
        layer: PEFT's layer, whose frozen layer, scale and dropout are shared. Linear layers and GPT-2's
            Conv1D are alike here: PEFT keeps A and B as [r, in] and [out, r] for both.
        rows: Whose the rows are.
    """

    def __init__(self, layer: LoraLayer, rows: Rows) -> None:
        super().__init__()
        self.base_layer = layer.get_base_layer()
        self.lora_dropout = layer.lora_dropout[ADAPTER]
        self.scaling = float(layer.scaling[ADAPTER])
        self.rows = rows
        # Plain tensors: they are views of the cohort's matrix and change with every cohort.
        self.a = layer.lora_A[ADAPTER].get_parameter("weight").detach()[None]
        self.b = layer.lora_B[ADAPTER].get_parameter("weight").detach()[None]
        self.beside: dict[str, Tensor] = {}

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        frozen = self.base_layer(x)
        a, b = self.rows.select(self.a), self.rows.select(self.b)
        # As PEFT does: the update is computed in the adapter's type, the sum is given back in the base's.
        low = torch.bmm(self.rows.split(self.lora_dropout(x.to(a.dtype))), a.transpose(1, 2))
        base = self.rows.split(frozen).to(low.dtype)
        if self.beside:
            share = self.rows.shares(x).to(low.dtype)
            other, b_other = (self.rows.select(self.beside[name]) for name in ("a", "b"))
            rest = torch.bmm(self.rows.split(x.to(a.dtype)), other.transpose(1, 2)) * (1 - share)
            base = torch.baddbmm(base, rest, b_other.transpose(1, 2), alpha=self.scaling)
            low = low * share
        return (
            torch.baddbmm(base, low, b.transpose(1, 2), alpha=self.scaling).to(frozen.dtype).view_as(frozen)
        )


class StackedLinear(nn.Module):
    """A trainable linear layer (a head) with each row's own weight [K, out, in] and bias [K, out].

    Args:
        layer: The layer as PEFT would train it.
        rows: Whose the rows are.
    """

    def __init__(self, layer: nn.Linear, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self.weight = layer.weight.detach()[None]
        self.bias = None if layer.bias is None else layer.bias.detach()[None]
        self.beside: dict[str, Tensor] = {}

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        y = self._answer(x, self.weight, self.bias)
        if self.beside:
            share = self.rows.shares(x).to(y.dtype)
            y = y * share + self._answer(x, self.beside["weight"], self.beside.get("bias")) * (1 - share)
        return y.reshape(*x.shape[:-1], -1)

    def _answer(
        self, x: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Float[Tensor, "groups positions out"]:
        weight = self.rows.select(weight)
        y = torch.bmm(self.rows.split(x).to(weight.dtype), weight.transpose(1, 2))
        return y if bias is None else y + self.rows.select(bias)[:, None]


class Stack:
    """A twin of a PEFT model that shares its frozen weights and holds the adapters of K clients.

    The twin has stacked layers exactly where PEFT has placed its own, so whatever decided the places (names,
    patterns, numbers of layers, ranks per layer) decides here too.

    Args:
        model: The PEFT model; it stays as it is.
        layout: The layout of its adapter; rows of the matrices follow it.

    Raises:
        UserError: If the adapter holds something that cannot be stacked, by the name of PEFT's option.
    """

    def __init__(self, model: PeftModel, layout: AdapterLayout) -> None:
        refuse_unstackable(model)
        self.layout = layout
        self.rows = Rows()
        shared: dict[int, Tensor | nn.Module]
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        # With all they hold: a layer of 8 bits takes its numbers from the weight when it is first used.
        shared |= {id(module): module for module in model.modules() if is_quantised(module)}
        self.model: nn.Module = copy.deepcopy(model.get_base_model(), shared)
        self._homes: dict[str, tuple[StackedLora | StackedLinear, str]] = dict(_place(self.model, self.rows))
        missing = {entry.name for entry in layout.entries} ^ set(self._homes)
        if missing:
            raise UserError(f"lora: cannot stack {', '.join(sorted(missing))}; {REMEDY}")
        for module in self.model.modules():
            # A decoder's key-value cache is of no use in training and scoring of whole texts.
            config = getattr(module, "config", None)
            if isinstance(config, PretrainedConfig):
                config.use_cache = False

    def bind(
        self,
        theta: Float[Tensor, "clients params"],
        gradient: Float[Tensor, "clients params"] | None = None,
        train: frozenset[str] | None = None,
    ) -> None:
        """Make the layers views of the rows of a matrix: no values are copied, and updates show at once.

        Args:
            theta: One adapter per row.
            gradient: Receives the gradients, added to what it holds; without it nothing is differentiated.
            train: Names of the tensors that are differentiated; None: all.
        """
        if theta.shape[1] != self.layout.size:
            raise ValueError(f"expected rows of {self.layout.size} parameters, got {theta.shape[1]}")
        for entry in self.layout.entries:
            shape, columns = (len(theta), *entry.shape), slice(entry.start, entry.stop)
            leaf = theta.detach()[:, columns].view(shape)
            if gradient is not None and (train is None or entry.name in train):
                leaf.requires_grad_()
                leaf.grad = gradient[:, columns].view(shape)
            home, attribute = self._homes[entry.name]
            setattr(home, attribute, leaf)

    @contextmanager
    def beside(
        self, other: Float[Tensor, "clients params"], share: Float[Tensor, "rows"] | float
    ) -> Iterator[Rows]:
        """Within it every layer gives share · own + (1 − share) · other: answers of whole adapted layers.

        Args:
            other: A second adapter per row of the stack, which is not trained; it sees no dropout.
            share: Of the own adapters; of each row of a batch, through the object that is given.
        """
        for entry in self.layout.entries:
            home, attribute = self._homes[entry.name]
            home.beside[attribute] = other[:, entry.start : entry.stop].view(-1, *entry.shape)
        self.rows.share = share
        try:
            yield self.rows
        finally:
            for home, _ in self._homes.values():
                home.beside.clear()
            self.rows.share = 1.0

    def __call__(
        self,
        client: Int[Tensor, "rows"],
        inputs: Mapping[str, Tensor],
        even: tuple[int, int] | None = None,
    ) -> Float[Tensor, "rows ..."]:
        """The model's answer to a batch in which each row belongs to a client of the stack; see `Rows`."""
        self.rows.client, self.rows.even = client, even
        return self.model(**inputs)


def _place(model: nn.Module, rows: Rows) -> Iterator[tuple[str, tuple[StackedLora | StackedLinear, str]]]:
    """Replace PEFT's layers; where the tensor of each name in the layout now lives."""
    stacked: StackedLora | StackedLinear
    for name, module in list(model.named_modules()):
        if is_linear(module):
            stacked = StackedLora(module, rows)
            homes = {"lora_A.weight": "a", "lora_B.weight": "b"}
        elif isinstance(module, ModulesToSaveWrapper):
            head = module.modules_to_save[ADAPTER]
            assert isinstance(head, nn.Linear)
            stacked = StackedLinear(head, rows)
            homes = {"weight": "weight"} | ({} if head.bias is None else {"bias": "bias"})
        else:
            continue
        model.set_submodule(name, stacked)
        for tensor, attribute in homes.items():
            yield f"{name}.{tensor}", (stacked, attribute)
