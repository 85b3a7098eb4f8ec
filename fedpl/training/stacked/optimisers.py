"""AdamW and SGD on the rows of a matrix: what torch does to one client's tensors, for all clients at once."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.records.layout import AdapterLayout
from fedpl.training.settings import ClientConfig

_BETAS = (0.9, 0.999)
_EPS = 1e-8
# So many numbers stay in a CPU's cache through all passes of a step, which takes a third of the time then.
_CACHED = 150_000


def clip_rows(gradient: Float[Tensor, "clients params"], largest: float) -> None:
    """Scale each client's gradient to at most this norm, by Lightning's (torch's) rule; 0 does not clip."""
    if largest:
        norms = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        gradient.mul_((largest / (norms + 1e-6)).clamp(max=1.0))


def column_rates(
    config: ClientConfig, layout: AdapterLayout, train: frozenset[str] | None = None
) -> Float[Tensor, "params"]:
    """The learning rate of every parameter: LoRA factors and head have their own; 0 where nothing learns.

    Args:
        config: Learning rates.
        layout: Says which columns are which.
        train: Names of the tensors that learn; None: all.
    """
    rates = torch.zeros(layout.size)
    for entry in layout.entries:
        if train is None or entry.name in train:
            rates[entry.start : entry.stop] = config.head_lr if entry.kind == "head" else config.lr
    return rates


class RowOptimiser(torch.optim.Optimizer):
    """An element-wise optimiser on the first rows of a matrix; the other rows and their state stay untouched.

    Args:
        theta: Adapters, one per row, updated in place.
        gradient: Their gradients.
        columns: Learning rate of each column.
        factors: Factor on the learning rate of each row.
        config: Which optimiser, weight decay, momentum.
        schedule: Further factors on each row's learning rate at each step; None: 1.
    """

    def __init__(
        self,
        theta: Float[Tensor, "clients params"],
        gradient: Float[Tensor, "clients params"],
        columns: Float[Tensor, "params"],
        factors: Float[Tensor, "clients"],
        config: ClientConfig,
        schedule: Float[Tensor, "steps clients"] | None = None,
    ) -> None:
        super().__init__([theta], {})
        self.theta, self.gradient, self.config = theta, gradient, config
        self.columns, self.factors = columns, factors[:, None]
        self.schedule = schedule
        self.steps = 0
        self.first = torch.zeros_like(theta)
        self.second = torch.zeros_like(theta) if config.optimizer == "adamw" else None

    def release(self) -> None:
        """Let go of all that is as large as the matrix."""
        self.param_groups.clear()
        self.state.clear()
        del self.theta, self.gradient, self.first, self.second

    @torch.no_grad()
    def step(self, closure: Callable | None = None, active: int | None = None) -> None:  # type: ignore[override]
        """One step of the first `active` rows (all by default).

        All rows start together and only ever stop, so one step count serves the rows still active.
        """
        if closure is not None:
            closure()
        self.steps += 1
        rows = len(self.theta) if active is None else active
        factors = self.factors
        if self.schedule is not None:
            factors = factors * self.schedule[self.steps - 1][:, None]
        size = max(rows if self.theta.is_cuda else _CACHED // self.theta.shape[1], 1)
        for start in range(0, rows, size):
            part = slice(start, min(start + size, rows))
            self._step(part, self.columns * factors[part])

    def _step(self, rows: slice, rates: Float[Tensor, "rows params"]) -> None:
        theta, gradient, first = self.theta[rows], self.gradient[rows], self.first[rows]
        decay = self.config.weight_decay
        if self.second is not None:
            theta.mul_(1 - rates * decay)
            second = self.second[rows]
            first.lerp_(gradient, 1 - _BETAS[0])
            second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            denominator = second.sqrt().div_(math.sqrt(1 - _BETAS[1] ** self.steps)).add_(_EPS)
            theta.addcdiv_(first.mul(rates.div_(1 - _BETAS[0] ** self.steps)), denominator, value=-1)
        else:
            change = gradient.add(theta, alpha=decay)
            # torch starts momentum at the first gradient; from zeros the same sum results.
            first.mul_(self.config.momentum).add_(change)
            theta.addcmul_(first, rates, value=-1)
