"""Before a run: what its data are, one example as the model sees it, what it is going to take."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedpl.config import Config, ExecutorConfig
from fedpl.data import ClientData, Dialogues, FederatedData, Images, Rated, Split, Tweets
from fedpl.data.pictures import decoded
from fedpl.data.wording import counted, listed, readable
from fedpl.deferred import deferred
from fedpl.files import writing
from fedpl.model.pretrained import load_tokenizer
from fedpl.records.messages import Census
from fedpl.runs.demands import check_demands
from fedpl.runs.earlier import check_base
from fedpl.runs.forecast import Forecast, forecast
from fedpl.runs.prepared import clients_of, prepare
from fedpl.runs.warm import take_over
from fedpl.tasks.examples import Examples
from fedpl.terminal import print_table
from fedpl.training.worker import Worker

if TYPE_CHECKING:
    from fedpl.pictures import label_counts
else:
    label_counts = deferred("fedpl.pictures.label_counts")

_SHOWN = 40  # clients
_LABELS = 3  # that are named for a client
_SPLITS = ("train", "validation", "test")
_MOST = 1200  # characters of an example


def run(config: Config, console: Console) -> dict[str, Any]:
    """Print it. Nothing is trained, and nothing written but a picture of the labels where a run_dir is named.

    Args:
        config: What would be run.
        console: Where to print.

    Returns:
        The numbers of it, for programs: examples of each client, trainable parameters, steps, bytes, seconds.

    Raises:
        UserError: Whatever the run itself would refuse before its first round.
    """
    data = clients_of(config)
    # One process can tell, whoever is going to train.
    executor, _, notes = prepare(replace(config, executor=ExecutorConfig()), data)
    census, worker = executor.join(), executor.site.worker  # type: ignore[attr-defined]
    check_demands(config, census)
    check_base(config)
    if (taken := take_over(config, census)) is not None:
        notes = (*notes, *taken.lines)
    size = f"{counted(len(data.clients), 'client')}, {census.layout.size:,} trainable parameters each"
    lines = [f"{config.name} on {census.place}: {size}", *notes]
    for line in lines:
        console.print(Text(f"fedpl: {line}"), soft_wrap=True)
    print_table(console, _table(data, census, worker))
    for text in _example(config, data, worker):
        console.print(text, soft_wrap=True)
    coming = forecast(config, worker)
    for line in _forecast_lines(config, coming):
        console.print(Text(line), soft_wrap=True)
    clients = {one.id: {split: len(getattr(one, split)) for split in _SPLITS} for one in data.clients}
    found = {"clients": clients, "parameters": census.layout.size, "rounds": config.rounds}
    found |= coming._asdict() | {"memory": coming.memory._asdict(), "labels": None}
    if config.run_dir is None or not data.classes:
        why = "a picture of the labels needs --run_dir" if data.classes else "there are no labels to draw"
        console.print(Text(f"nothing was trained, nothing was written ({why})"), soft_wrap=True)
        return found
    # Beside the folder, which has to be empty when the run begins.
    folder = Path(config.run_dir)
    path = folder.with_name(f"{folder.name}-labels.png")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        label_counts.draw_labels({c.id: c.train.labels for c in data.clients}, data.classes, path)
    console.print(Text(f"nothing was trained; labels: {path}"), soft_wrap=True)
    return found | {"labels": str(path)}


def _table(data: FederatedData, census: Census, worker: Worker) -> Table:
    metric, floors = census.metrics[0], {member.client: member.floor for member in census.members}
    table = Table(title="Clients", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("client", overflow="fold")
    for name in ("train", "val.", "test", "tokens", "longest", "again", "floor"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"training {_kind(data.clients[0].train)}")
    for client in data.clients[:_SHOWN]:
        lengths = sorted(worker.partitions.examples[client.id, "train"].lengths)
        floor = floors[client.id]
        table.add_row(
            Text(readable(client.id, 30)),
            *(str(len(getattr(client, split))) for split in _SPLITS),
            str(lengths[len(lengths) // 2]),
            str(lengths[-1]),
            str(_repeated(client)),
            metric.shown(None if floor is None else floor[metric.name]),
            Text(_answers(client.train, data.classes)),
        )
    pictured = worker.partitions.task.pictured
    patches, things = (" (one a patch)", "images") if pictured else ("", "texts")
    caption = (
        f"tokens: of the median training example{patches}; again: {things} that the client has before; "
        f"floor: {metric.title}, of the best answer without learning"
    )
    if len(data.clients) > _SHOWN:
        caption = f"the first {_SHOWN} of {len(data.clients):,} clients; {caption}"
    table.caption = caption
    return table


def _kind(split: Split) -> str:
    if isinstance(split, Dialogues):
        return "answers"
    return "numbers" if isinstance(split, Rated) else "labels"


def _answers(split: Split, classes: tuple[str, ...]) -> str:
    if isinstance(split, Dialogues):
        return f"{len(set(split.answers)):,} different"
    if isinstance(split, Rated):
        return f"{min(split.values):.3g} to {max(split.values):.3g}, mean {fmean(split.values):.3g}"
    times = Counter(split.labels).most_common()
    return listed((f"{readable(classes[label], 16)} {number}" for label, number in times), _LABELS)


def _repeated(client: ClientData) -> int:
    texts = [text for split in _SPLITS for text in getattr(client, split).said]
    return len(texts) - len(set(texts))


def _example(config: Config, data: FederatedData, worker: Worker) -> list[Text]:
    """The first client's first training example as the model sees it, and what of it carries the loss."""
    if isinstance(config.data, Tweets):
        return [Text("an example is not shown: tweets are other people's words")]
    client = data.clients[0]
    if isinstance(client.train, Images):
        return _image(client.id, client.train, worker.partitions.examples[client.id, "train"], data.classes)
    examples, tokenizer = worker.partitions.examples[client.id, "train"], load_tokenizer(config.model)
    shown = Text(f"the first training example of '{readable(client.id)}', as the model sees it:\n")
    if examples.marks is None:
        if isinstance(client.train, Rated):
            what, answer = "number", f"{client.train.values[0]:g}"
        else:
            what, answer = "label", readable(data.classes[client.train.labels[0]])
        shown.append(_cut(str(tokenizer.decode(examples.ids[0]))))
        shown.append(f"\n→ ⟦{answer}⟧", style="bold green")
        return [shown, Text(f"what carries the loss: the {what}, by a head on the pooled text (⟦ ⟧)")]
    marks = examples.marks[: examples.lengths[0]].tolist()
    for learned, ids in _runs(examples.ids[0].tolist(), marks):
        words = str(tokenizer.decode(ids))
        shown.append(f"⟦{_cut(words)}⟧" if learned else _cut(words), style="bold green" if learned else "dim")
    number = f"{counted(sum(marks), 'token')} of {len(marks)}"
    return [shown, Text(f"what carries the loss: {number} (⟦ ⟧), the answer and its end")]


def _image(client: str, split: Images, examples: Examples, classes: tuple[str, ...]) -> list[Text]:
    """The first training image: how large it is, and as the model sees it."""
    own, seen = decoded(split.pictures[0]), examples.collate([0]).inputs["pixel_values"][0]
    mean = ", ".join(f"{value:.0f}" for value in seen.float().mean((1, 2)).tolist())
    shown = Text(
        f"the first training image of '{readable(client)}': {readable(split.texts[0])}, {own.width} × "
        f"{own.height} pixels; as the model sees it {seen.shape[2]} × {seen.shape[1]}, mean red, green, "
        f"blue {mean} of 255"
    )
    shown.append(f"\n→ ⟦{readable(classes[split.labels[0]])}⟧", style="bold green")
    return [shown, Text("what carries the loss: the label, by a head on the pooled states (⟦ ⟧)")]


def _runs(ids: list[int], marks: list[bool]) -> list[tuple[bool, list[int]]]:
    found: list[tuple[bool, list[int]]] = []
    for token, learned in zip(ids, marks, strict=True):
        if not found or found[-1][0] != learned:
            found.append((learned, []))
        found[-1][1].append(token)
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[: _MOST // 2]} … {text[-_MOST // 2 :]}"


def _forecast_lines(config: Config, found: Forecast) -> list[str]:
    drawn = f", of whom {found.asked} are drawn" if config.participation.fraction < 1 else ""
    per_round = f"{found.steps:,} optimiser steps of all clients in a round{drawn}"
    passes = "" if found.passes is None else f" in {found.passes:,} passes of up to {found.cohort} clients"
    lines = [f"steps: {per_round}{passes}; {config.rounds} rounds, {counted(found.methods, 'method')}"]
    if found.more:
        lines.append("steps: a method trains in other phases beside the main one, which come on top")
    memory: Any = found.memory
    parts = {
        "frozen model": memory.model,
        "task vectors and aggregates": memory.server,
        "a cohort's adapters and moments": memory.cohort,
        "activations of a pass": memory.activations,
    }
    known = [f"{name} {_size(value)}" for name, value in parts.items() if value]
    lines.append(f"memory: {', '.join(known)}, beside about 1 GB of libraries")
    words = "; answers in words come on top" if config.task.writes is not None else ""
    if config.executor.kind != "here":
        words += f"; this process alone, where {config.executor.workers} workers are going to share it"
    lines.append(
        f"seconds: about {_time(found.seconds)} of training and scoring, from a timed forward pass "
        f"({found.rate:,.0f} tokens/s), a step being taken for three of them{words}"
    )
    return lines


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
