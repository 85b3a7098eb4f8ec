"""The LightningModule that fine-tunes the adapters of a cohort of clients at once."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext

import lightning
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from fedpl.clients.dropout import StreamDropout
from fedpl.clients.engine import Engine
from fedpl.clients.fitting import fit_once
from fedpl.clients.hardware import Hardware
from fedpl.clients.module import set_dropout
from fedpl.clients.optimisers import RowOptimiser, clip_rows, column_rates
from fedpl.clients.packing import Learner, Limits, Pass, Step, steps
from fedpl.config import ClientConfig


class CohortModule(lightning.LightningModule):
    """Fine-tuning of K adapters as if each were trained alone.

    The loss is the sum over clients of each client's own mean loss and everything else (clipping, learning
    rates, optimiser) works row by row, so a client's gradient and steps are its own. A step's rows may be
    computed in several passes, whose gradients add up, which is why the optimisation is manual.

    Args:
        engine: The stacked model.
        theta: Adapters, one row per client; trained in place.
        learners: The clients, by descending number of steps.
        config: Optimiser, learning rates, clipping, dropout.
    """

    def __init__(
        self,
        engine: Engine,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.learners = learners
        # In a tuple: Lightning moves the modules it knows to the CPU after every fit, and the frozen model
        # must stay where it is.
        self._engine = (engine,)
        self.theta = theta
        self.gradient = torch.zeros_like(theta)
        self.losses = torch.zeros(len(theta), device=theta.device)
        self.optimiser: RowOptimiser | None = None
        # Without any dropout the pass need not be watched.
        self._drops = config.model_dropout or engine.adapter_dropout

    @property
    def mean_losses(self) -> list[float]:
        """Each client's mean training loss over its steps."""
        sums = self.losses.tolist()
        return [total / len(learner.order) for total, learner in zip(sums, self.learners, strict=True)]

    def on_fit_start(self) -> None:
        engine = self._engine[0]
        set_dropout(engine.stack.model, self.config.model_dropout)
        engine.stack.bind(self.theta, self.gradient)
        engine.set_classes([learner.classes for learner in self.learners])

    def release(self) -> None:
        """Let go of what is as large as the cohort: Trainer and module, in a cycle, stay a while."""
        self._engine[0].stack.bind(self.theta)
        del self.theta, self.gradient
        if self.optimiser is not None:
            self.optimiser.release()

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        return Step(tuple(part.to(self.theta.device) for part in batch.passes), batch.active)

    def training_step(self, batch: Step, batch_idx: int) -> None:
        optimiser = self.optimizers()
        for part in batch.passes:
            loss = self._losses(part)
            self.manual_backward(loss.sum())
            self.losses.index_add_(0, part.client, loss.detach())
        active = self.gradient[: batch.active]
        clip_rows(active, self.config.gradient_clip)
        optimiser.step(active=batch.active)  # type: ignore[union-attr]
        active.zero_()

    def _losses(self, part: Pass) -> Float[Tensor, "rows"]:
        engine = self._engine[0]
        streams = StreamDropout(part.key) if self._drops else None
        engine.streams = streams
        with streams or nullcontext():
            logits = engine(part, cache=not self.config.model_dropout)
        return F.cross_entropy(logits.float(), part.labels, reduction="none") * part.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        device = self.theta.device
        columns = column_rates(self.config, self._engine[0].stack.layout).to(device)
        factors = torch.tensor([learner.rate for learner in self.learners], device=device)
        self.optimiser = RowOptimiser(self.theta, self.gradient, columns, factors, self.config)
        return self.optimiser


class _Steps(IterableDataset):
    """A cohort's steps, packed as they are asked for."""

    def __init__(self, learners: Sequence[Learner], limits: Limits) -> None:
        self.arguments = (learners, limits)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return steps(*self.arguments)


def fit_cohort(
    engine: Engine,
    theta: Float[Tensor, "clients params"],
    learners: Sequence[Learner],
    config: ClientConfig,
    hardware: Hardware,
    limits: Limits,
) -> list[float]:
    """Fine-tune K adapters in place.

    Args:
        engine: The stacked model.
        theta: Adapters, one row per client, on the training device.
        learners: The clients, by descending number of steps.
        config: How clients fine-tune.
        hardware: Where to train, in which arithmetic.
        limits: How rows are cut into passes.

    Returns:
        Each client's mean training loss over its steps.
    """
    module = CohortModule(engine, theta, learners, config)
    with warnings.catch_warnings():
        # Gradients are views of rows on purpose; autograd would rather choose their strides itself.
        warnings.filterwarnings("ignore", ".*do not obey the gradient layout contract.*")
        loader = DataLoader(_Steps(learners, limits), batch_size=None, collate_fn=lambda step: step)
        try:
            fit_once(module, loader, hardware)
        finally:
            module.release()
    return module.mean_losses
