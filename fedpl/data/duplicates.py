"""Near-duplicate texts: retweets, copied messages and form letters that would leak across splits."""

import re
from collections.abc import Sequence

import numpy as np

from fedpl.deferred import deferred

sparse, csgraph = map(deferred, ("scipy.sparse", "scipy.sparse.csgraph"))

_NOT_CONTENT = re.compile(r"https?://\S+|\bt\.co/\S+|[@]\w+|\brt\b")
_WORD = re.compile(r"[a-z0-9']+")


def normalise(text: str) -> str:
    """Lower-cased words without links, mentions, retweet marks, punctuation."""
    return " ".join(_WORD.findall(_NOT_CONTENT.sub(" ", text.lower())))


def near_duplicate_groups(texts: Sequence[str], threshold: float = 0.5) -> np.ndarray:
    """Group number of each text; texts that say nearly the same share one.

    Two texts are linked if they are equal after `normalise` or if the Jaccard similarity of their sets of
    three-word shingles reaches the threshold; groups are the connected components.

    Args:
        texts: n texts.
        threshold: Jaccard similarity in (0, 1].

    Returns:
        int array [n], groups numbered in order of first appearance.
    """
    vocabulary: dict[str, int] = {}
    columns: list[int] = []
    starts = [0]
    for text in texts:
        words = normalise(text).split()
        # A text under three words is its own single shingle.
        shingles = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
        columns.extend(vocabulary.setdefault(shingle, len(vocabulary)) for shingle in sorted(shingles))
        starts.append(len(columns))
    shape = (len(texts), max(1, len(vocabulary)))
    incidence = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=shape)
    shared = (incidence @ incidence.T).tocoo()
    sizes = np.diff(starts)
    jaccard = shared.data / (sizes[shared.row] + sizes[shared.col] - shared.data)
    linked = jaccard >= threshold
    links = sparse.csr_matrix(
        (np.ones(linked.sum()), (shared.row[linked], shared.col[linked])), shape=(len(texts),) * 2
    )
    _, labels = csgraph.connected_components(links, directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def without_near_duplicates(texts: Sequence[str], threshold: float = 0.5) -> np.ndarray:
    """Indices of the first text of every near-duplicate group, in order."""
    _, first = np.unique(near_duplicate_groups(texts, threshold), return_index=True)
    return np.sort(first)
