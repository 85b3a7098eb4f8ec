"""What models answer to the texts of a split: one client's through PEFT, or many clients' stacked."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from fedpl.clients.adapter import unflatten
from fedpl.clients.batches import Batch, evaluation_batches
from fedpl.clients.duo import Duo, Models, beside, centre, compared_examples, head_inputs, shares
from fedpl.clients.engine import Engine
from fedpl.clients.model import HEAD
from fedpl.clients.module import known_classes
from fedpl.clients.packing import Limits, Pass, Row, pack

if TYPE_CHECKING:
    from fedpl.clients.trainer import ClientTrainer


def answers(
    trainer: "ClientTrainer", client: str, model: Models, split: str
) -> Iterator[tuple[Batch, Float[Tensor, "batch classes"]]]:
    """Logits of every text of a split of one client's data.

    Args:
        trainer: Tokens and the PEFT model.
        client: Whose data.
        model: An adapter, or two.
        split: train, validation or test.
    """
    device = trainer.hardware.device
    peft = trainer.model.eval()
    tokens = trainer.tokens[client, split]
    size = trainer.config.evaluation.batch_size

    def run(batch: Batch) -> Float[Tensor, "batch classes"]:
        with torch.no_grad(), trainer.hardware.autocast():
            return peft(
                input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
            )

    if not isinstance(model, Duo):
        unflatten(model, peft, trainer.layout)
        for batch in evaluation_batches(tokens, size):
            yield batch, known_classes(run(batch), trainer.classes[client])
        return
    unflatten(model.local, peft, trainer.layout)
    known = trainer.tokens[client, "train"]
    with head_inputs(peft.get_base_model().get_submodule(HEAD)) as seen:
        run(known.collate(compared_examples(trainer.config.seed, client, len(known), model.examples)))
        middle = centre(seen.pop())[None]
        batches = list(evaluation_batches(tokens, size))
        gates = []
        for batch in batches:
            run(batch)
            gates.append(shares(seen.pop(), middle, model.max_share))
    with beside(peft, trainer.layout, model.common.to(device)) as share:
        for batch, share.value in zip(batches, gates, strict=True):
            yield batch, known_classes(run(batch), trainer.classes[client])


def stacked_answers(
    trainer: "ClientTrainer",
    engine: Engine,
    limits: Limits,
    clients: Sequence[str],
    models: Models,
    split: str,
) -> Iterator[tuple[Pass, Float[Tensor, "rows classes"]]]:
    """Logits of every text of a split of many clients; rows weigh as much as in their client's mean.

    Args:
        trainer: Tokens and classes.
        engine: The stacked model.
        limits: How rows are cut into passes.
        clients: Whose data.
        models: An adapter per client, or two.
        split: train, validation or test.
    """
    device = trainer.hardware.device
    engine.stack.model.eval()
    engine.set_classes([trainer.classes[client] for client in clients])
    tokens = [trainer.tokens[client, split] for client in clients]
    rows = [Row(place, part, i, 1 / len(part)) for place, part in enumerate(tokens) for i in range(len(part))]
    parts = pack(rows, limits)
    if not isinstance(models, Duo):
        engine.stack.bind(models.to(device))
        yield from _run(trainer, engine, parts)
        return
    engine.stack.bind(models.local.to(device))
    gates = _gates(trainer, engine, limits, clients, models, parts)
    with engine.stack.beside(models.common.to(device), 1.0) as own:
        for part, own.share in zip(parts, gates, strict=True):
            yield from _run(trainer, engine, [part])


def _gates(
    trainer: "ClientTrainer",
    engine: Engine,
    limits: Limits,
    clients: Sequence[str],
    duo: Duo,
    parts: Sequence[Pass],
) -> list[Float[Tensor, "rows"]]:
    """The local adapter's share for each row of each pass, with that adapter in place."""
    known = [trainer.tokens[client, "train"] for client in clients]
    rows = [
        Row(place, part, i)
        for place, (client, part) in enumerate(zip(clients, known, strict=True))
        for i in compared_examples(trainer.config.seed, client, len(part), duo.examples)
    ]
    vectors: list[list[Tensor]] = [[] for _ in clients]
    with head_inputs(engine.stack.model.get_submodule(HEAD)) as seen:
        for part, _ in _run(trainer, engine, pack(rows, limits)):
            for row, vector in zip(part.rows, seen.pop(), strict=True):
                vectors[row.client].append(vector)
        centres = torch.stack([centre(torch.stack(own)) for own in vectors])
        return [
            shares(seen.pop(), centres[part.client], duo.max_share)
            for part, _ in _run(trainer, engine, parts)
        ]


def _run(
    trainer: "ClientTrainer", engine: Engine, parts: Sequence[Pass]
) -> Iterator[tuple[Pass, Float[Tensor, "rows classes"]]]:
    for part in parts:
        moved = part.to(trainer.hardware.device)
        with torch.no_grad(), trainer.hardware.autocast():
            logits = engine(moved, cache=True)
        yield moved, logits
