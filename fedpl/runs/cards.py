"""What lies beside each adapter of a run: ``fedpl.json``, by which it is loaded, and a model card."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fedpl.config import Config
from fedpl.deferred import deferred
from fedpl.files import quoted, write_atomically
from fedpl.model.weights import digest, resolve
from fedpl.records.card import CAUSAL, CLASSIFIER, ENCODER, HEAD_FILE, Card
from fedpl.records.choice import FOLDER, Choice
from fedpl.records.earlier import Earlier
from fedpl.records.messages import Census, Member
from fedpl.records.newcomer import Newcomer
from fedpl.records.results import MethodResult, Models
from fedpl.runs.modelcard import page
from fedpl.versions import versions

if TYPE_CHECKING:
    from fedpl.model import vision
else:
    vision = deferred("fedpl.model.vision")

_NEIGHBOURS = 10  # that a card names


def describe(
    config: Config,
    census: Census,
    found: MethodResult | None,
    folder: Path,
    choices: Mapping[str, Choice] | None = None,
    begun: Earlier | None = None,
) -> None:
    """Write both files into every adapter's folder of a run, if adapters are there and not with a site.

    Args:
        config: What was run.
        census: All clients.
        found: The method's result; None at a site, which knows neither scores nor weights.
        folder: The run directory.
        choices: What clients chose by their validation data, where they did.
        begun: With which run's models the clients began.

    Raises:
        UserError: If they cannot be written.
    """
    if not (folder / "adapters").is_dir():
        return
    base = resolve(config.model.path), digest(config.model.path)
    for kind in ("adapters", "personal", *([FOLDER] if choices is not None else [])):
        for member in census.members:
            where = folder / kind / quoted(member.client)
            choice = None if choices is None else choices.get(member.client)
            # Who chose its aggregate has no other copy of it.
            if not where.is_dir() or (kind == FOLDER and choice is not None and choice.model == "aggregated"):
                continue
            weights = {} if found is None else found.taken(member.client)
            card = replace(
                _card(config, census, member, where, base, weights),
                kind=kind,
                choice=choice,
                begun=begun,
                round=config.rounds if found is None else found.rounds,
            )
            if found is not None:
                card = replace(card, scores=found.clients[member.client])
            _put(card, config, census, where, folder)


def describe_newcomer(config: Config, census: Census, newcomer: Newcomer, where: Path, run: Path) -> None:
    """The same for an adapter of a newcomer.

    Args:
        config: The run's.
        census: The newcomers.
        newcomer: Whose it is.
        where: The adapter's folder.
        run: The run directory.

    Raises:
        UserError: If they cannot be written.
    """
    base = resolve(config.model.path), digest(config.model.path)
    member = next(one for one in census.members if one.client == newcomer.client)
    test = newcomer.scores.get("test")
    scores = Models(
        aggregated=None if test is None else test.aggregated, tuned=None if test is None else test.tuned
    )
    card = _card(config, census, member, where, base, newcomer.weights)
    card = replace(card, kind="newcomers", round=newcomer.rounds, scores=scores)
    card = replace(card, served=newcomer.served, begun=newcomer.begun)
    _put(card, config, census, where, run)
    if (own := where / "personal").is_dir():
        card = replace(card, loads_as=_loads_as(config, own))
        _put(card, config, census, own, run)


def _card(
    config: Config,
    census: Census,
    member: Member,
    where: Path,
    base: tuple[str, str],
    weights: Mapping[str, float],
) -> Card:
    return Card(
        client=member.client,
        kind="adapters",
        method=config.name,
        round=0,
        base=base[0],
        base_sha256=base[1],
        loads_as=_loads_as(config, where),
        pooling=config.model.pooling,
        max_length=config.model.max_length,
        id2label={str(i): label for i, label in enumerate(census.labels)},
        scores=Models(aggregated=None, tuned=None),
        pairs=census.pairs or None,
        images=config.task.pictured or None,
        quantized=config.model.quantized,
        weights=_largest(weights, member.client) if weights else None,
        data=member.origin,
        versions=versions(),
    )


def _largest(weights: Mapping[str, float], client: str) -> dict[str, float]:
    """A client's own weight, and those of the others that count most."""
    others = sorted((one for one in weights if one != client), key=lambda one: -abs(weights[one]))
    named = [one for one in others[:_NEIGHBOURS] if weights[one]]
    return {one: weights[one] for one in (client, *named)}


def _put(card: Card, config: Config, census: Census, where: Path, run: Path) -> None:
    card.write(where)
    words = getattr(config.task, "template", "")
    write_atomically(where / "README.md", page(card, census.metrics, run, words).encode())


def _loads_as(config: Config, folder: Path) -> str:
    if not config.task.headed:
        return CAUSAL
    if config.task.pictured:
        return vision.tower_of(config.model)[0].name
    return ENCODER if (folder / HEAD_FILE).exists() else CLASSIFIER
