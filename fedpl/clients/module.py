"""The LightningModule that fine-tunes one client's adapter."""

import lightning
import torch
from peft import PeftModel
from torch import Tensor

from fedpl.clients.adapter import trainable
from fedpl.clients.batches import Batch
from fedpl.config import ClientConfig
from fedpl.layout import kind_of


class ClientModule(lightning.LightningModule):
    """Cross-entropy fine-tuning of LoRA and head with AdamW, each with its own learning rate.

    Args:
        model: The frozen model with a trainable adapter.
        config: Learning rates, weight decay, dropout.
    """

    def __init__(self, model: PeftModel, config: ClientConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.losses: list[float] = []

    def on_fit_start(self) -> None:
        # Hugging Face loads models in evaluation mode and Lightning keeps the mode it finds.
        self.model.train(self.config.model_dropout)
        if not self.config.model_dropout:
            for name, module in self.model.named_modules():
                if "lora_dropout" in name:
                    module.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        loss = torch.nn.functional.cross_entropy(logits.float(), batch["labels"])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = trainable(self.model)
        lora = [p for name, p in parameters.items() if kind_of(name) != "head"]
        head = [p for name, p in parameters.items() if kind_of(name) == "head"]
        groups = [{"params": lora, "lr": self.config.lr}, {"params": head, "lr": self.config.head_lr}]
        return torch.optim.AdamW(groups, weight_decay=self.config.weight_decay)
