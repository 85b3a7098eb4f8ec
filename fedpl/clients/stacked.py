"""The adapters of K clients stacked in one model: their rows go through the frozen layers together."""

import copy
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, PeftModel
from peft.tuners.lora import Linear as PeftLinear
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import PretrainedConfig

from fedpl.clients.adapter import trainable
from fedpl.errors import UserError
from fedpl.layout import AdapterLayout

_ADAPTER = "default"
_REMEDY = "set client.cohort_size to 1, which trains clients one by one through PEFT itself"

# Options of PEFT's LoraConfig that change more than A, B, their scale and whole linear layers.
_REFUSED = (
    "use_dora",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)


class Rows:
    """Whose the rows of the present batch are; one object, read by all stacked layers of a model.

    Attributes:
        client: The client of each row, as a place in the stack.
        even: If each client from one place up to another has the same number of rows, and they follow each
            other, these two places: then a client's rows are one group. Otherwise each row is a group.
    """

    client: Int[Tensor, "rows"]
    even: tuple[int, int] | None = None

    def select(self, stack: Float[Tensor, "clients ..."]) -> Float[Tensor, "groups ..."]:
        """The tensors of each group's client: a view where the rows are even, else a copy per row."""
        if self.even is None:
            return stack.index_select(0, self.client)
        return stack[slice(*self.even)]

    def split(self, x: Float[Tensor, "..."]) -> Float[Tensor, "groups positions features"]:
        """A batch-first activation with one matrix per group."""
        if x.shape[0] % len(self.client):
            raise ValueError(
                f"expected activations of {len(self.client)} rows, got shape {tuple(x.shape)}; the model "
                f"does not keep the batch first: {_REMEDY}"
            )
        groups = len(self.client) if self.even is None else self.even[1] - self.even[0]
        return x.reshape(groups, -1, x.shape[-1])


class StackedLora(nn.Module):
    """``base(x) + alpha / r · B A dropout(x)`` with each row's own A [K, r, in] and B [K, out, r].

    Args:
        layer: PEFT's layer, whose frozen layer, scale and dropout are shared. Linear layers and GPT-2's
            Conv1D are alike here: PEFT keeps A and B as [r, in] and [out, r] for both.
        rows: Whose the rows are.
    """

    def __init__(self, layer: PeftLinear, rows: Rows) -> None:
        super().__init__()
        self.base_layer = layer.get_base_layer()
        self.lora_dropout = layer.lora_dropout[_ADAPTER]
        self.scaling = float(layer.scaling[_ADAPTER])
        self.rows = rows
        # Plain tensors: they are views of the cohort's matrix and change with every cohort.
        self.a = layer.lora_A[_ADAPTER].get_parameter("weight").detach()[None]
        self.b = layer.lora_B[_ADAPTER].get_parameter("weight").detach()[None]

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        frozen = self.base_layer(x)
        a, b = self.rows.select(self.a), self.rows.select(self.b)
        # As PEFT does: the update is computed in the adapter's type, the sum is given back in the base's.
        low = torch.bmm(self.rows.split(self.lora_dropout(x.to(a.dtype))), a.transpose(1, 2))
        base = self.rows.split(frozen).to(low.dtype)
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

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        weight = self.rows.select(self.weight)
        y = torch.bmm(self.rows.split(x).to(weight.dtype), weight.transpose(1, 2))
        if self.bias is not None:
            y = y + self.rows.select(self.bias)[:, None]
        return y.reshape(*x.shape[:-1], -1)


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
        _refuse(model)
        self.layout = layout
        self.rows = Rows()
        shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.model: nn.Module = copy.deepcopy(model.get_base_model(), shared)
        self._homes = dict(_place(self.model, self.rows))
        missing = {entry.name for entry in layout.entries} ^ set(self._homes)
        if missing:
            raise UserError(f"lora: cannot stack {', '.join(sorted(missing))}; {_REMEDY}")
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

    def __call__(
        self,
        client: Int[Tensor, "rows"],
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        even: tuple[int, int] | None = None,
    ) -> Float[Tensor, "rows classes"]:
        """The model's answer to a batch in which each row belongs to a client of the stack; see `Rows`."""
        self.rows.client, self.rows.even = client, even
        return self.model(input_ids=input_ids, attention_mask=attention_mask)


def _place(model: nn.Module, rows: Rows) -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Replace PEFT's layers; where the tensor of each name in the layout now lives."""
    stacked: nn.Module
    for name, module in list(model.named_modules()):
        if isinstance(module, PeftLinear):
            stacked = StackedLora(module, rows)
            homes = {"lora_A.weight": "a", "lora_B.weight": "b"}
        elif isinstance(module, ModulesToSaveWrapper):
            head = module.modules_to_save[_ADAPTER]
            assert isinstance(head, nn.Linear)
            stacked = StackedLinear(head, rows)
            homes = {"weight": "weight"} | ({} if head.bias is None else {"bias": "bias"})
        else:
            continue
        model.set_submodule(name, stacked)
        for tensor, attribute in homes.items():
            yield f"{name}.{tensor}", (stacked, attribute)


def _refuse(model: PeftModel) -> None:
    """Name the option of an adapter that cannot be stacked.

    Raises:
        UserError: If there is one.
    """
    config = model.peft_config.get(_ADAPTER)
    if not isinstance(config, LoraConfig):
        raise UserError(
            f"expected one LoRA adapter named '{_ADAPTER}'; for another kind of adapter, {_REMEDY}"
        )
    options = [name for name in _REFUSED if getattr(config, name, None)]
    if config.bias != "none":
        options.append(f"bias='{config.bias}'")
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            kept = module.modules_to_save[_ADAPTER]
            if type(kept) is not nn.Linear:
                options.append(f"modules_to_save ({name} is a {type(kept).__name__}, not an nn.Linear)")
        elif hasattr(module, "lora_A") and not isinstance(module, PeftLinear):
            options.append(f"target_modules ({name} is a {type(module).__name__})")
    if options:
        raise UserError(f"lora: cohorts cannot train {', '.join(options)}; {_REMEDY}")
    strange = [n for n in trainable(model) if "lora_" in n and not n.endswith(("A.weight", "B.weight"))]
    if strange:
        raise UserError(f"lora: cohorts cannot train {', '.join(strange)}; {_REMEDY}")
