"""Near-duplicate texts: retweets, copied messages and form letters that would leak across splits."""

import math
import re
from collections import Counter, deque
from collections.abc import Collection, Hashable, Iterable, Sequence

import numpy as np

_NOT_CONTENT = re.compile(r"https?://\S+|\bt\.co/\S+|[@]\w+|\brt\b")
_WORD = re.compile(r"[a-z0-9']+")
_ANY_WORD = re.compile(r"(?:[^\W_]|')+")
_COMPANY = 128  # texts with which a text is compared through one shingle
_ROUNDING = 1e-9


def normalise(text: str) -> str:
    """Lower-cased words without links, mentions, retweet marks, punctuation.

    Letters beyond a to z separate words, as what is left of smileys and broken encodings should, unless they
    are most of the text.
    """
    bare = _NOT_CONTENT.sub(" ", text.lower())
    words = _WORD.findall(bare)
    if 2 * sum(map(len, words)) < sum(map(str.isalnum, bare)):
        words = _ANY_WORD.findall(bare)
    return " ".join(words)


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.5) -> np.ndarray:
    """Group number of each text; texts that say nearly the same share one.

    Two texts are linked if they are equal after `normalise` or if the Jaccard similarity of their sets of
    three-word shingles reaches the threshold; groups are the connected components. That is exact as long as
    no more than 128 different texts share one of the rarer shingles of a text; beyond, it is compared with
    the 128 of most similar length, so that the work grows with the number of texts.

    Args:
        texts: n texts.
        threshold: Jaccard similarity in (0, 1].

    Returns:
        int array [n], groups numbered in order of first appearance.
    """
    return near_duplicates((normalise(text).split() for text in texts), threshold)


def near_duplicates(rows: Iterable[Sequence[Hashable]], threshold: float = 0.5) -> np.ndarray:
    """`near_duplicate_groups` of texts as their words, whatever these are."""
    vocabulary: dict[Hashable, int] = {}
    # Different sets of shingles, in order of first appearance; as sets they would take eight times as much.
    places: dict[tuple[int, ...], int] = {}
    owners = []
    for row in rows:
        words = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in row]
        # A shingle is a number of three words' places, 32 bits each, which takes no memory beside the sets. A
        # text under three words is its own single one.
        words += [0] * (3 - len(words))
        own = {a << 64 | b << 32 | c for a, b, c in zip(words, words[1:], words[2:], strict=False)}
        owners.append(places.setdefault(tuple(sorted(own)), len(places)))
    search = Search(list(places), threshold)
    roots = [search.root(owner) for owner in owners]
    numbers = {root: i for i, root in enumerate(dict.fromkeys(roots))}
    return np.array([numbers[root] for root in roots], dtype=np.int64)


def without_near_duplicates(texts: Sequence[str], threshold: float = 0.5) -> np.ndarray:
    """Indices of the first text of every near-duplicate group, in order."""
    _, first = np.unique(near_duplicate_groups(texts, threshold), return_index=True)
    return np.sort(first)


class Search:
    """Connected components of sets whose Jaccard similarity reaches a threshold.

    Prefix filtering (Chaudhuri et al. 2006, Xiao et al. 2008): two such sets share one of their rarest
    elements, so that sets are looked up by these alone.

    Args:
        sets: Different sets, each of different elements.
        threshold: Jaccard similarity in (0, 1].

    Attributes:
        pairs: How many pairs of sets were looked at.
    """

    def __init__(self, sets: Sequence[Collection[int]], threshold: float) -> None:
        self.pairs = 0
        self._parents = list(range(len(sets)))
        times = Counter(element for own in sets for element in own)
        # By size: a set is found by those that are as large or larger, for which its shorter prefix will do.
        # The companions of a set that are dropped when there are too many are thus the smallest.
        found: dict[int, deque[int]] = {}
        for place in sorted(range(len(sets)), key=lambda place: len(sets[place])):
            own = sets[place]
            size = len(own)
            rarest = sorted(own, key=lambda element: (times[element], element))
            looked_up = size - math.ceil(threshold * size - _ROUNDING) + 1
            kept = size - math.ceil(2 * threshold / (1 + threshold) * size - _ROUNDING) + 1
            near = {other for element in rarest[:looked_up] for other in found.get(element, ())}
            self.pairs += len(near)
            elements = set(own) if near else set()
            for other in near:
                if self.root(other) != self.root(place) and _similar(elements, sets[other], threshold):
                    self._parents[self.root(other)] = self.root(place)
            for element in rarest[:kept]:
                if times[element] == 1:  # nobody looks it up, and most are such
                    continue
                found.setdefault(element, deque(maxlen=_COMPANY)).append(place)

    def root(self, place: int) -> int:
        """What stands for a set's component."""
        parents = self._parents
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place


def _similar(one: set[int], other: Collection[int], threshold: float) -> bool:
    if len(other) < threshold * len(one) - _ROUNDING:
        return False
    shared = len(one.intersection(other))
    return shared / (len(one) + len(other) - shared) >= threshold
