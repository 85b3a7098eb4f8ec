"""What clients are left with when a run has ended: adapters for PEFT to load."""

from pathlib import Path

from fedpl.files import quoted, writing
from fedpl.model.foundation import Foundation
from fedpl.model.saved import save_adapter
from fedpl.records.messages import Deliver
from fedpl.site.memory import Memory


def deliver(notice: Deliver, foundation: Foundation, memory: Memory) -> None:
    """Write every client's aggregate θ̄ᵢ in PEFT format, with what was added to the frozen weights.

    What clients keep beside it is written under ``personal/``, by those who keep something.

    Args:
        notice: The aggregates.
        foundation: Model and layout.
        memory: What the clients remember.

    Raises:
        UserError: If nothing can be written.
    """
    folder, model, layout = Path(notice.folder), foundation.model, foundation.layout
    for client, aggregate in zip(notice.clients, notice.models, strict=True):
        where = folder / "adapters" / quoted(client)
        with writing(where):
            where.parent.mkdir(exist_ok=True)
            save_adapter(aggregate, model, layout, where, notice.residual)
        state = memory.recall(client, notice.memories.get(client, ""))
        personal = notice.objective.personal(state, aggregate.cpu())
        if personal is not None:
            where = folder / "personal" / quoted(client)
            with writing(where):
                where.parent.mkdir(exist_ok=True)
                save_adapter(personal, model, layout, where)
