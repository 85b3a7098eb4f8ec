"""The LightningModule that fine-tunes one client's adapter."""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from fedpl.objectives.phases import Mixture, Phase
from fedpl.records.layout import AdapterLayout, kind_of
from fedpl.tasks import Task
from fedpl.tasks.examples import Batch
from fedpl.training.classes import known_classes
from fedpl.training.dropout import StreamDropout, row_keys, set_dropout
from fedpl.training.partitions import Learner
from fedpl.training.settings import ClientConfig


class ClientModule(lightning.LightningModule):
    """Fine-tuning of LoRA and head, each with its own learning rate.

    What a phase adds is left to autograd here, and written out in the cohorts: one checks the other.

    Args:
        model: The frozen model with an adapter.
        parameters: The adapter's tensors by name; those that learn require gradients.
        config: Optimiser, learning rates, weight decay, dropout.
        task: The loss.
        learner: The client's part.
        phase: Penalties and view, of one row.
    """

    def __init__(
        self,
        model: PeftModel,
        parameters: Mapping[str, nn.Parameter],
        config: ClientConfig,
        task: Task,
        learner: Learner,
        phase: Phase,
    ) -> None:
        super().__init__()
        # In a tuple: Lightning moves the modules it knows to the CPU after a fit, and the model must stay.
        self._model = (model,)
        self.config = config
        self.task = task
        self.learner = learner
        self.phase = phase
        self.losses: list[float] = []
        self.adapter = parameters
        self.layout = AdapterLayout.of({name: tuple(p.shape) for name, p in parameters.items()})
        full = {id(p): name for name, p in model.named_parameters()}
        self._names = {name: full[id(p)] for name, p in parameters.items()}
        if isinstance(phase.view, Mixture) and phase.view.rate:
            phase.view.share.requires_grad_()

    def on_fit_start(self) -> None:
        set_dropout(self._model[0], self.config.model_dropout)

    def training_step(self, step: tuple[Batch, list[float]], batch_idx: int) -> Tensor:
        (inputs, targets), weights = step
        keys = row_keys(self.learner.stream, batch_idx, len(targets))
        with StreamDropout(keys.to(targets.device)):
            outputs = known_classes(self._answer(inputs), self.learner.classes)
        losses = self.task.losses(outputs, targets)
        loss = (losses * torch.tensor(weights, device=losses.device)).sum()
        self.losses.append(loss.item())
        for penalty in self.phase.penalties:
            loss = loss + penalty.value(self._vector()).sum()
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        view = self.phase.view
        if isinstance(view, Mixture) and view.share.grad is not None:
            with torch.no_grad():
                view.learn(view.share.grad)
            view.share.grad = None

    @torch.no_grad()
    def on_train_batch_end(self, *_: object) -> None:
        if self.phase.view is not None:
            for parameter in self.adapter.values():
                self.phase.view.bound(parameter)

    def on_fit_end(self) -> None:
        if isinstance(self.phase.view, Mixture):
            self.phase.view.share.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        optimiser, factors = self._optimiser(), self.learner.factors
        if not factors:
            return optimiser
        # Asked once more after the last step.
        schedule = LambdaLR(optimiser, lambda step: factors[min(step, len(factors) - 1)])
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _optimiser(self) -> torch.optim.Optimizer:
        parameters = {name: p for name, p in self.adapter.items() if p.requires_grad}
        lora = [p for name, p in parameters.items() if kind_of(name) != "head"]
        head = [p for name, p in parameters.items() if kind_of(name) == "head"]
        groups = [{"params": lora, "lr": self.config.lr}, {"params": head, "lr": self.config.head_lr}]
        groups = [group for group in groups if group["params"]]
        decay = self.config.weight_decay
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=self.config.momentum, weight_decay=decay)
        return torch.optim.AdamW(groups, weight_decay=decay)

    def _answer(self, inputs: dict[str, Tensor]) -> Float[Tensor, "batch ..."]:
        if self.phase.view is None:
            return self._model[0](**inputs)
        (point,) = self.phase.view.point(self._vector())
        tensors = {
            self._names[entry.name]: point[entry.start : entry.stop].view(entry.shape)
            for entry in self.layout.entries
        }
        return torch.func.functional_call(self._model[0], tensors, kwargs=inputs)

    def _vector(self) -> Float[Tensor, "1 params"]:
        """The adapter as one row, for autograd."""
        parts = [self.adapter[entry.name].reshape(-1) for entry in self.layout.entries]
        return torch.cat(parts)[None]
