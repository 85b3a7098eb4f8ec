"""One fit of a module on a fresh Lightning Trainer, as every client and every cohort needs it."""

import logging
import warnings

import lightning
from lightning.fabric.plugins.environments import LightningEnvironment
from torch.utils.data import DataLoader

from fedpl.model.hardware import Hardware

# One line per client and round about devices would drown a run's own output; importing it sets another level.
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def fit_once(
    module: lightning.LightningModule, loader: DataLoader, hardware: Hardware, gradient_clip: float = 0.0
) -> None:
    """Go through the loader once.

    Args:
        module: What to train.
        loader: All batches of the round; it holds all epochs.
        hardware: Where to train, in which arithmetic.
        gradient_clip: Largest norm of a step's gradient; 0 does not clip.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*module\\(s\\) in eval mode.*")  # the modules set their mode
        warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")  # inside Lightning
        # A Trainer keeps its progress: a second fit on the same one would train nothing.
        trainer = lightning.Trainer(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            precision=hardware.precision,  # type: ignore[arg-type]
            max_epochs=1,
            gradient_clip_val=gradient_clip or None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            # A cluster's scheduler is not asked: its tasks are not ranks of this training, and its signals
            # are not the Trainer's to handle.
            plugins=[LightningEnvironment()],
        )
        try:
            trainer.fit(module, loader)
        except SystemExit as leaving:
            # Lightning ends the process with code 1 at an interrupt; how it ends is not its to decide.
            if isinstance(leaving.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise
