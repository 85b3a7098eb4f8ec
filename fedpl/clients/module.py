"""The LightningModule that fine-tunes one client's adapter."""

import lightning
import torch
from peft import PeftModel
from torch import Tensor, nn

from fedpl.clients.adapter import trainable
from fedpl.clients.batches import Batch
from fedpl.clients.dropout import StreamDropout, row_keys
from fedpl.config import ClientConfig
from fedpl.layout import kind_of


class ClientModule(lightning.LightningModule):
    """Cross-entropy fine-tuning of LoRA and head, each with its own learning rate.

    Args:
        model: The frozen model with a trainable adapter.
        config: Optimiser, learning rates, weight decay, dropout.
        stream: Seed of the client's dropout in this round.
    """

    def __init__(self, model: PeftModel, config: ClientConfig, stream: int = 0) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.stream = stream
        self.losses: list[float] = []

    def on_fit_start(self) -> None:
        set_dropout(self.model, self.config.model_dropout)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        labels = batch["labels"]
        with StreamDropout(row_keys(self.stream, batch_idx, len(labels)).to(labels.device)):
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        loss = nn.functional.cross_entropy(logits.float(), labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = trainable(self.model)
        lora = [p for name, p in parameters.items() if kind_of(name) != "head"]
        head = [p for name, p in parameters.items() if kind_of(name) == "head"]
        groups = [{"params": lora, "lr": self.config.lr}, {"params": head, "lr": self.config.head_lr}]
        decay = self.config.weight_decay
        if self.config.optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=self.config.momentum, weight_decay=decay)
        return torch.optim.AdamW(groups, weight_decay=decay)


def set_dropout(model: nn.Module, everywhere: bool) -> None:
    """Training mode: dropout everywhere, or before LoRA's A only.

    Hugging Face loads models in evaluation mode and Lightning keeps the mode it finds.
    """
    model.train(everywhere)
    for name, module in model.named_modules():
        if "lora_dropout" in name:
            module.train()
