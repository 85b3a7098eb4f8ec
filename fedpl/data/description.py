"""What a run's data are, for its first lines: sizes, classes, who lacks what, and what looks wrong."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from fedpl.data.records import ClientData, Dialogues, FederatedData, Images, Rated, Split
from fedpl.data.wording import counted, listed, readable, some

_CLASSES = 12  # that are named with their sizes
_NAMED = 5  # clients that are named for one reason
_NO_LABELS = {"none", "na", "n/a", "-", "?", "unknown"}
_SPLITS = ("train", "validation", "test")


def describe(data: FederatedData) -> Iterator[str]:
    """One line a matter; those that begin with "warning" are about what may not be meant."""
    clients = data.clients
    sizes = {split: sum(len(getattr(client, split)) for client in clients) for split in _SPLITS}
    parts = ", ".join(f"{split} {size:,}" for split, size in sizes.items())
    if any(isinstance(client.train, Dialogues) for client in clients):
        yield f"data: {counted(sum(sizes.values()), 'example')} ({parts}); {_answers(clients)}"
        yield from data.notes
        yield from _unscored(clients)
        yield from _repeated(clients)
        yield from (f"warning: {line}" for line in (*_constant(clients), *_doubted(data.ids)))
        return
    if any(isinstance(client.train, Rated) for client in clients):
        yield f"data: {counted(sum(sizes.values()), 'example')} ({parts}); {_numbers(clients)}"
        yield from data.notes
        yield from _unscored(clients)
        yield from _repeated(clients)
        yield from (f"warning: {line}" for line in (*_unvaried(clients), *_doubted(data.ids)))
        return
    times = Counter(
        label for client in clients for split in _SPLITS for label in getattr(client, split).labels
    )
    known = Counter(label for client in clients for label in client.train.labels)
    found = listed((f"{readable(name, 30)} {times[i]:,}" for i, name in enumerate(data.classes)), _CLASSES)
    number = "1 class" if len(data.classes) == 1 else f"{len(data.classes):,} classes"
    yield f"data: {counted(times.total(), 'example')} ({parts}); {number}: {found}"
    yield from data.notes
    yield from _unscored(clients)
    yield from _repeated(clients)
    yield from _lacking(clients, data.classes)
    yield from (f"warning: {line}" for line in _doubtful(data.classes, times, known))
    yield from (f"warning: {line}" for line in _doubted(data.ids))


def _right(split: Split) -> Sequence[int] | Sequence[str] | Sequence[float]:
    """What is right for each example."""
    if isinstance(split, Rated):
        return split.values
    return split.answers if isinstance(split, Dialogues) else split.labels


def _numbers(clients: Sequence[ClientData]) -> str:
    splits = [getattr(client, split) for client in clients for split in _SPLITS]
    values = [value for own in splits if isinstance(own, Rated) for value in own.values]
    return f"numbers from {min(values):g} to {max(values):g}, mean {sum(values) / len(values):.3g}"


def _unvaried(clients: Sequence[ClientData]) -> Iterator[str]:
    """Clients that are taught one number alone."""
    alone = [
        client.id
        for client in clients
        if isinstance(client.train, Rated) and len(set(client.train.values)) == 1 < len(client.train)
    ]
    if alone:
        yield f"{counted(len(alone), 'client')} with one number alone in training: {some(alone, _NAMED)}"


def _answers(clients: Sequence[ClientData]) -> str:
    """How many different answers there are, how long, and among how many options."""
    splits = [getattr(client, split) for client in clients for split in _SPLITS]
    rows = [own for own in splits if isinstance(own, Dialogues)]
    answers = [answer for own in rows for answer in own.answers]
    words = sorted(len(answer.split()) for answer in answers)
    line = (
        f"{counted(len(set(answers)), 'different answer')} of {words[0]} to {words[-1]} words "
        f"(median {words[len(words) // 2]})"
    )
    options = [len(one) for own in rows for one in own.options]
    turns = [sum(one.role == "assistant" for one in said) for own in rows for said in own.messages]
    line += f"; {min(options)} to {max(options)} options" if options else ""
    return line + (f"; up to {max(turns)} answers in a conversation" if max(turns) > 1 else "")


def _constant(clients: Sequence[ClientData]) -> Iterator[str]:
    """Clients that are taught one answer alone."""
    alone = [
        client.id
        for client in clients
        if isinstance(client.train, Dialogues) and len(set(client.train.answers)) == 1 < len(client.train)
    ]
    if alone:
        yield f"{counted(len(alone), 'client')} with one answer alone in training: {some(alone, _NAMED)}"


def _unscored(clients: Sequence[ClientData]) -> Iterator[str]:
    for split in ("validation", "test"):
        without = [client.id for client in clients if not len(getattr(client, split))]
        if len(without) == len(clients):
            yield f"warning: no client has {split} examples: there are no scores on them"
        elif without:
            rest = counted(len(clients) - len(without), "other")
            yield (
                f"{counted(len(without), 'client')} without {split} examples, not scored on them: "
                f"{some(without, _NAMED)}; means are over the {rest}"
            )


def _repeated(clients: Sequence[ClientData]) -> Iterator[str]:
    """Equal texts of one client: told once, and if it is tested on what it is trained on."""
    repeated = both = 0
    for client in clients:
        splits = [getattr(client, split) for split in _SPLITS]
        own = [pair for split in splits for pair in zip(split.said, _right(split), strict=True)]
        different = len({text for text, _ in own})
        repeated += len(own) - different
        both += len(set(own)) - different
    if not repeated:
        return
    kinds = ((Dialogues, "answer"), (Rated, "number"), (Split, "label"))
    what = next(name for kind, name in kinds if isinstance(clients[0].train, kind))
    labels = f", {counted(both, 'time')} with another {what}" if both else ""
    thing = "an image" if isinstance(clients[0].train, Images) else "a text"
    yield f"{counted(repeated, 'example')} with {thing} that the same client has before{labels}"
    leaked = sum(
        text in train
        for client, train in ((client, set(client.train.said)) for client in clients)
        for text in (*client.validation.said, *client.test.said)
    )
    if leaked:
        yield (
            f"warning: {counted(leaked, 'validation or test example')} with {thing} that the same client is "
            f"trained on: scores are too good"
        )


def _lacking(clients: Sequence[ClientData], classes: Sequence[str]) -> Iterator[str]:
    """Clients whose training data lack classes, and those that have one alone."""
    own = {client.id: sorted(set(client.train.labels)) for client in clients}
    if len(classes) == 1:
        return
    lacking = {client: found for client, found in own.items() if 1 < len(found) < len(classes)}
    if lacking:
        named = (
            f"'{readable(client)}' (no {some((name for i, name in enumerate(classes) if i not in found), 3)})"
            for client, found in lacking.items()
        )
        yield f"{counted(len(lacking), 'client')} without some classes in training: {listed(named, _NAMED)}"
    alone = [
        f"'{readable(c)}' ('{readable(classes[found[0]])}')" for c, found in own.items() if len(found) == 1
    ]
    if alone:
        yield (
            f"warning: {counted(len(alone), 'client')} with one class alone in training, which teaches "
            f"a constant answer: {listed(alone, _NAMED)}"
        )


def _doubtful(classes: Sequence[str], times: Counter[int], known: Counter[int]) -> Iterator[str]:
    """What speaks against the classes being meant."""
    yield from _alike("classes", classes)
    numbers = [name for name in classes if _number(name) is not None]
    if 0 < len(numbers) < len(classes):
        words = [name for name in classes if name not in numbers]
        yield f"classes are partly numbers ({some(numbers, 3)}) and partly words ({some(words, 3)})"
    fractions = [name for name in numbers if not (_number(name) or 0.0).is_integer()]
    if fractions:
        yield f"classes are numbers with fractions ({some(fractions, 3)}): each is a class of its own"
    missing = [name for name in classes if name.strip().lower() in _NO_LABELS]
    if missing:
        yield f"{some(missing)} may stand for no label; it is a class"
    once = [name for i, name in enumerate(classes) if times[i] == 1]
    if once:
        yield f"{counted(len(once), 'label')} seen once: {some(once, _NAMED)}"
    untrained = [name for i, name in enumerate(classes) if not known[i] and times[i]]
    if untrained:
        yield f"no client has training examples of {some(untrained, _NAMED)}"
    if len(classes) == 1:
        yield f"there is one class alone, {some(classes)}: there is nothing to learn"


def _alike(what: str, names: Iterable[str]) -> Iterator[str]:
    """Names that differ by case and spaces alone."""
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(" ".join(name.split()).casefold(), []).append(name)
    alike = [some(found) for found in spellings.values() if len(found) > 1]
    if alike:
        yield f"{what} that differ by case or spaces alone: {'; '.join(alike[:_NAMED])}"


def _doubted(ids: Sequence[str]) -> Iterator[str]:
    """What speaks against clients being meant."""
    yield from _alike("client ids", ids)
    missing = [name for name in ids if name.strip().lower() in (*_NO_LABELS, "nan", "null", "#n/a")]
    if missing:
        yield f"{some(missing)} may stand for no client; it is one"


def _number(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None
