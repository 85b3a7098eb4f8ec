"""The LightningModule that fine-tunes the adapters of a cohort of clients at once."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext

import lightning
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset

from fedpl.model.hardware import Hardware
from fedpl.objectives.phases import PLAIN, Phase
from fedpl.tasks import Task
from fedpl.training.ahead import ahead
from fedpl.training.dropout import StreamDropout, set_dropout
from fedpl.training.fitting import fit_once
from fedpl.training.partitions import Learner
from fedpl.training.segments import add_by_client
from fedpl.training.settings import ClientConfig
from fedpl.training.stacked.engine import Engine
from fedpl.training.stacked.optimisers import RowOptimiser, clip_rows, column_rates
from fedpl.training.stacked.packing import Limits, Pass, Step, steps


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
        task: The loss.
        phase: What learns, penalties, and what stands between the rows and the model.
    """

    def __init__(
        self,
        engine: Engine,
        theta: Float[Tensor, "clients params"],
        learners: Sequence[Learner],
        config: ClientConfig,
        task: Task,
        phase: Phase,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.task = task
        self.learners = learners
        self.phase = phase
        # In a tuple: Lightning moves the modules it knows to the CPU after every fit, and the frozen model
        # must stay where it is.
        self._engine = (engine,)
        self.theta = theta
        self.point = theta if phase.view is None else phase.view.point(theta)
        self.gradient = torch.zeros_like(theta)
        self.losses = torch.zeros(len(theta), device=theta.device)
        self.optimiser: RowOptimiser | None = None
        # Without any dropout the pass need not be watched.
        self._drops = config.model_dropout or engine.adapter_dropout

    @property
    def mean_losses(self) -> list[float]:
        """Each client's mean training loss over its steps."""
        sums = self.losses.tolist()
        return [
            total / max(len(learner.order), 1) for total, learner in zip(sums, self.learners, strict=True)
        ]

    def on_fit_start(self) -> None:
        engine = self._engine[0]
        set_dropout(engine.stack.model, self.config.model_dropout)
        engine.stack.bind(self.point, self.gradient, self.phase.train)
        engine.set_classes([learner.classes for learner in self.learners])

    def release(self) -> None:
        """Let go of what is as large as the cohort: Trainer and module, in a cycle, stay a while."""
        self._engine[0].stack.bind(self.theta)
        del self.theta, self.point, self.gradient, self.phase
        if self.optimiser is not None:
            self.optimiser.release()

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        return Step(tuple(part.to(self.theta.device) for part in batch.passes), batch.active)

    def training_step(self, batch: Step, batch_idx: int) -> None:
        for part in batch.passes:
            loss = self._losses(part)
            self.manual_backward(loss.sum())
            add_by_client(self.losses, part.client, loss.detach())
        self._step(batch.active)

    @torch.no_grad()
    def _step(self, active: int) -> None:
        """One step of the first rows, along what the model's gradient is for the phase."""
        theta, gradient, phase = (
            self.theta[:active],
            self.gradient[:active],
            self.phase.rows(slice(0, active)),
        )
        if phase.view is not None:
            phase.view.pull_back(theta, gradient)
        for penalty in phase.penalties:
            gradient.addcmul_(penalty.gradient(theta), self._learns)
        clip_rows(gradient, self.config.gradient_clip)
        self.optimizers().step(active=active)  # type: ignore[union-attr]
        if phase.view is not None:
            phase.view.bound(theta)
            self.point[:active] = phase.view.point(theta)
        gradient.zero_()

    def _losses(self, part: Pass) -> Float[Tensor, "rows"]:
        engine = self._engine[0]
        streams = StreamDropout(part.key) if self._drops else None
        engine.streams = streams
        with streams or nullcontext():
            outputs = engine(part, cache=not self.config.model_dropout)
        return self.task.losses(outputs, part.targets) * part.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        device = self.theta.device
        columns = column_rates(self.config, self._engine[0].stack.layout, self.phase.train).to(device)
        self._learns = (columns > 0).to(self.theta)
        factors = torch.tensor([learner.rate for learner in self.learners], device=device)
        schedule = _table([learner.factors for learner in self.learners])
        self.optimiser = RowOptimiser(
            self.theta,
            self.gradient,
            columns,
            factors,
            self.config,
            None if schedule is None else schedule.to(device),
        )
        return self.optimiser


def _table(factors: Sequence[Sequence[float]]) -> Float[Tensor, "steps clients"] | None:
    """Clients' schedules side by side, 0 where one has ended; None: nobody has one."""
    if not any(factors):
        return None
    return pad_sequence([torch.tensor(own) for own in factors])


class _Once(IterableDataset):
    """Steps as they come, for one pass over them."""

    def __init__(self, stream: Iterator[Step]) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Step]:
        return self.stream


def fit_cohort(
    engine: Engine,
    theta: Float[Tensor, "clients params"],
    learners: Sequence[Learner],
    config: ClientConfig,
    hardware: Hardware,
    limits: Limits,
    task: Task,
    phase: Phase = PLAIN,
) -> list[float]:
    """Fine-tune K adapters in place.

    Args:
        engine: The stacked model.
        theta: Adapters, one row per client, on the training device.
        learners: The clients, by descending number of steps.
        config: How clients fine-tune.
        hardware: Where to train, in which arithmetic.
        limits: How rows are cut into passes.
        task: The loss.
        phase: What learns, penalties, and what stands between the rows and the model.

    Returns:
        Each client's mean training loss over its steps.
    """
    module = CohortModule(engine, theta, learners, config, task, phase)
    with warnings.catch_warnings():
        # Gradients are views of rows on purpose; autograd would rather choose their strides itself.
        warnings.filterwarnings("ignore", ".*do not obey the gradient layout contract.*")
        second = nullcontext() if phase.beside is None else engine.stack.beside(*phase.beside)
        try:
            with second, closing(ahead(steps(learners, limits))) as stream:
                loader = DataLoader(_Once(stream), batch_size=None, collate_fn=lambda step: step)
                fit_once(module, loader, hardware)
        finally:
            module.release()
    return module.mean_losses
