"""Adapters of a finished run, loaded by PEFT on the frozen model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from fedpl.config import Config
from fedpl.data import Split
from fedpl.errors import UserError


def load(config: Config, classes: Sequence[str], folder: Path) -> PeftModel:
    """A client's model, in evaluation mode, on the CPU.

    Args:
        config: The run's.
        classes: Names of the classes.
        folder: The adapter, in PEFT format.

    Raises:
        UserError: If the foundation model cannot be loaded, or the adapter is not whole.
    """
    base = config.task.base(config.model, classes)
    try:
        return PeftModel.from_pretrained(base, str(folder)).eval()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be loaded as an adapter: {' '.join(str(error).split())}") from error


@torch.no_grad()
def predict(config: Config, classes: Sequence[str], folder: Path, texts: Sequence[str]) -> list[str]:
    """The class of each text by a client's model. Arguments and errors as of `load`."""
    if not texts:
        return []
    model = load(config, classes, folder)
    examples = config.task.encoder(config.model)(Split(tuple(texts), (0,) * len(texts)))
    size, answers = config.evaluation.batch_size, []
    for start in range(0, len(texts), size):
        batch = examples.collate(list(range(start, min(start + size, len(texts)))))
        answers += config.task.answers(model(**batch.inputs))
    return [classes[answer] for answer in answers]
