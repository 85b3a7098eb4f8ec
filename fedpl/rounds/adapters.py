"""What a finished run leaves for PEFT to load."""

from collections.abc import Sequence

import torch

from fedpl.clients.adapter import save_adapter
from fedpl.clients.merged import save_merged
from fedpl.clients.trainer import ClientTrainer
from fedpl.errors import UserError
from fedpl.files import writing
from fedpl.interop import borrow
from fedpl.objectives import Objective
from fedpl.rounds.folder import MethodFolder, RunFolder


def save_adapters(
    folder: RunFolder,
    trainer: ClientTrainer,
    clients: Sequence[str],
    method: MethodFolder,
    objective: Objective,
) -> None:
    """Every client's aggregate θ̄ᵢ in PEFT format, with what was added to the frozen weights.

    What clients keep beside it is written under ``personal/``, by those who keep something.

    Args:
        folder: The run directory.
        trainer: Model and layout.
        clients: Client ids by row.
        method: Where the method's state lies.
        objective: Says what a client's personal model is.

    Raises:
        UserError: If the state is gone or nothing can be written.
    """
    checkpoint = method.checkpoints.latest()
    if checkpoint is None:
        raise UserError(f"{method.path} holds no intact state any more")
    aggregates = borrow(checkpoint.state.personal)
    residual = checkpoint.state.memory.get("residual")
    for row, client in enumerate(clients):
        where = folder.adapter(client)
        with writing(folder.sub("adapters")):
            if residual is None:
                save_adapter(aggregates[row], trainer.model, trainer.layout, where)
            else:
                save_merged(aggregates[row], borrow(residual), trainer.model, trainer.layout, where)
        kept = checkpoint.client_states.get(row, {})
        state = {name: torch.from_numpy(value) for name, value in kept.items()}
        personal = objective.personal(state, aggregates[row].cpu())
        if personal is not None:
            with writing(folder.sub("personal")):
                save_adapter(personal, trainer.model, trainer.layout, folder.adapter(client, "personal"))
