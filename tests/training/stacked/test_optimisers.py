"""Rows of a matrix take the very steps that torch gives one client's tensors."""

import pytest
import torch

from fedpl.config import ClientConfig
from fedpl.records.layout import AdapterLayout
from fedpl.training.stacked import optimisers
from fedpl.training.stacked.optimisers import RowOptimiser, clip_rows, column_rates

LAYOUT = AdapterLayout.of(
    {"layer.0.q.lora_A.weight": (2, 3), "layer.0.q.lora_B.weight": (4, 2), "head.bias": (3,)}
)


@pytest.mark.parametrize("cached", [1, 2 * LAYOUT.size, 10**6], ids=["row", "two-rows", "all"])
@pytest.mark.parametrize(
    ("name", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("sgd", 0.0)], ids=["adamw", "momentum", "sgd"]
)
def test_rows_equal_torch(name: str, momentum: float, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimisers, "_CACHED", cached)
    config = ClientConfig(lr=0.01, head_lr=0.1, weight_decay=0.1, optimizer=name, momentum=momentum)  # type: ignore[arg-type]
    torch.manual_seed(0)
    factors, budgets = (1.0, 0.3, 2.0), (7, 5, 2)
    theta = torch.randn(3, LAYOUT.size)
    gradients = torch.randn(7, 3, LAYOUT.size)
    alone = [row.clone() for row in theta]
    for client, (factor, budget) in enumerate(zip(factors, budgets, strict=True)):
        lora, head = (part.requires_grad_() for part in alone[client].split([14, 3]))
        lora, head = lora.detach().requires_grad_(), head.detach().requires_grad_()
        groups = [{"params": [lora], "lr": 0.01 * factor}, {"params": [head], "lr": 0.1 * factor}]
        optimiser = (
            torch.optim.AdamW(groups, weight_decay=0.1)
            if name == "adamw"
            else torch.optim.SGD(groups, momentum=momentum, weight_decay=0.1)
        )
        for step in range(budget):
            lora.grad, head.grad = gradients[step, client].split([14, 3])
            optimiser.step()
        alone[client] = torch.cat([lora.detach(), head.detach()])
    gradient = torch.empty_like(theta)
    together = RowOptimiser(theta, gradient, column_rates(config, LAYOUT), torch.tensor(factors), config)
    for step in range(7):
        gradient.copy_(gradients[step])
        together.step(active=sum(budget > step for budget in budgets))
    torch.testing.assert_close(theta, torch.stack(alone), rtol=1e-5, atol=1e-6)


def test_each_row_has_its_own_schedule() -> None:
    config = ClientConfig(lr=0.01, head_lr=0.1, weight_decay=0.0, optimizer="sgd", momentum=0.0)
    theta, gradient = torch.zeros(2, LAYOUT.size), torch.ones(2, LAYOUT.size)
    columns, factors = column_rates(config, LAYOUT), torch.tensor([1.0, 3.0])
    schedule = torch.tensor([[1.0, 0.5], [0.5, 0.25]])
    optimiser = RowOptimiser(theta, gradient, columns, factors, config, schedule)
    optimiser.step()
    torch.testing.assert_close(theta, -columns * torch.tensor([[1.0], [1.5]]))
    optimiser.step()
    torch.testing.assert_close(theta, -columns * torch.tensor([[1.5], [2.25]]))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_finished_rows_do_not_move(name: str) -> None:
    config = ClientConfig(optimizer=name)  # type: ignore[arg-type]
    theta = torch.randn(3, LAYOUT.size)
    gradient = torch.randn(3, LAYOUT.size)
    optimiser = RowOptimiser(theta, gradient, column_rates(config, LAYOUT), torch.ones(3), config)
    optimiser.step()
    before = theta.clone()
    optimiser.step(active=2)
    assert theta[2].equal(before[2])
    assert (theta[:2] != before[:2]).all()


def test_clipping_is_each_rows_own() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(4, 50) * torch.tensor([0.01, 1.0, 30.0, 1.0])[:, None]
    gradient[3] = torch.nan
    expected = gradient.clone()
    for row in expected[:3]:
        parts = [part.clone().requires_grad_() for part in row.split(20)]
        for part in parts:
            part.grad = part.detach().clone()
        torch.nn.utils.clip_grad_norm_(parts, 1.0)
        row.copy_(torch.cat([part.grad for part in parts if part.grad is not None]))
    clip_rows(gradient, 1.0)
    torch.testing.assert_close(gradient[:3], expected[:3])
    assert gradient[3].isnan().all()
    untouched = torch.randn(2, 9)
    clip_rows(copy := untouched.clone(), 0.0)
    assert copy.equal(untouched)
