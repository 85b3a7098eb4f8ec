"""What clients are left with when a run has ended: adapters for PEFT to load."""

import json
from collections.abc import Mapping
from pathlib import Path

from fedpl.files import make_folder, quoted, write_atomically, writing
from fedpl.model.foundation import Foundation
from fedpl.model.saved import save_adapter
from fedpl.records.messages import Deliver
from fedpl.site.memory import Memory
from fedpl.training.worker import Worker


def deliver(
    notice: Deliver,
    foundation: Foundation,
    memory: Memory,
    classes: Mapping[str, tuple[int, ...] | None],
) -> None:
    """Write every client's aggregate θ̄ᵢ in PEFT format, with what was added to the frozen weights.

    What clients keep beside it is written under ``personal/``.

    Args:
        notice: The aggregates.
        foundation: Model and layout.
        memory: What the clients remember.
        classes: Those that each client can answer; None: all.

    Raises:
        UserError: If nothing can be written.
    """
    folder, model, layout = Path(notice.folder), foundation.model, foundation.layout
    for client, aggregate in zip(notice.clients, notice.models, strict=True):
        where = folder / "adapters" / quoted(client)
        with writing(where):
            where.parent.mkdir(exist_ok=True)
            save_adapter(aggregate, model, layout, where, notice.residual, classes[client])
        state = memory.recall(client, notice.memories.get(client, ""))
        personal = notice.objective.personal(state, aggregate.cpu())
        if personal is not None:
            where = folder / "personal" / quoted(client)
            with writing(where):
                where.parent.mkdir(exist_ok=True)
                save_adapter(personal, model, layout, where, classes=classes[client])


def deliver_answers(notice: Deliver, worker: Worker) -> None:
    """Write what every client's aggregate answers to its test prompts, where a task writes answers.

    A line for each prompt: as the model read it, the right answer, and its own.

    Args:
        notice: The aggregates.
        worker: Scores the clients.

    Raises:
        UserError: If nothing can be written.
    """
    asked, folder = worker.partitions.prompts, Path(notice.folder) / "predictions"
    if asked is None:
        return
    with writing(folder):
        make_folder(folder)
    rows = [row for row, client in enumerate(notice.clients) if asked.questions[client, "test"].ids]
    clients = [notice.clients[row] for row in rows]
    models = notice.models if len(rows) == len(notice.clients) else notice.models[rows]  # a copy of them
    for client, answers in zip(clients, worker.written(clients, models, "test"), strict=True):
        own = asked.questions[client, "test"]
        read = (asked.tokenizer.decode(ids, skip_special_tokens=True) for ids in own.ids)
        lines = (
            json.dumps({"prompt": prompt, "right": right, "answer": answer}, ensure_ascii=False) + "\n"
            for prompt, right, answer in zip(read, own.references, answers, strict=True)
        )
        write_atomically(folder / f"{quoted(client)}.jsonl", "".join(lines).encode())
