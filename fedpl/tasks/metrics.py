"""What answers are worth."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fedpl.deferred import deferred
from fedpl.records.scores import Metric, Scores

rouge, stats = map(deferred, ("rouge_score.rouge_scorer", "scipy.stats"))

CLASSIFICATION = (Metric("accuracy", "%"), Metric("macro_f1", "%"))
GENERATION = tuple(Metric(name, "%") for name in ("rouge1", "rouge2", "rougeL", "exact_match"))
REGRESSION = (
    Metric("mae", "", False),
    Metric("rmse", "", False),
    Metric("pearson"),
    Metric("spearman"),
)
TOKENS = (Metric("loss", "", False), Metric("perplexity", "", False))
EVERY = (*CLASSIFICATION, *REGRESSION, *TOKENS, *GENERATION)
_ROUGE = tuple(metric.name for metric in GENERATION[:3])
_CANDIDATES = 20  # constant answers that are tried, of each kind


def classification_scores(labels: Sequence[int], answers: Sequence[int]) -> Scores:
    """Share of right answers, and F1 averaged over the classes that occur among labels or answers.

    To the bit what scikit-learn gives, which takes two milliseconds a client to check its arguments.

    Args:
        labels: What is right, at least one.
        answers: What was answered, one for each label.
    """
    if not 0 < len(labels) == len(answers):
        raise ValueError(f"{len(labels)} labels and {len(answers)} answers, expected as many, at least one")
    right, own = np.array(labels), np.array(answers)
    classes, places = np.unique(np.concatenate([right, own]), return_inverse=True)
    hits = np.bincount(places[: len(right)][right == own], minlength=len(classes))
    f1 = 2 * hits / np.bincount(places)  # 2·hits / (labels + answers), of each class
    return {"accuracy": float((right == own).mean()), "macro_f1": float(f1.mean())}


def regression_scores(values: Sequence[float], answers: Sequence[float]) -> Scores:
    """Mean absolute and root mean square error, and correlations: 0 where one side is constant.

    Args:
        values: What is right, at least one.
        answers: What was answered.
    """
    right, own = np.array(values, np.float64), np.array(answers, np.float64)
    varied = bool(np.isfinite(own).all()) and np.ptp(right) > 0 and np.ptp(own) > 0
    return {
        "mae": float(np.abs(right - own).mean()),
        "rmse": float(np.sqrt(np.square(right - own).mean())),
        "pearson": float(stats.pearsonr(right, own).statistic) if varied else 0.0,
        "spearman": float(stats.spearmanr(right, own).statistic) if varied else 0.0,
    }


def generation_scores(references: Sequence[str], answers: Sequence[str]) -> Scores:
    """Means of ROUGE-1, -2 and -L (F-measure, without stemming) and the share that says exactly the same.

    Args:
        references: What is right, at least one.
        answers: What was decoded. Spaces at the ends and how many stand between words make no difference.
    """
    scorer = rouge.RougeScorer(_ROUGE)
    found = [scorer.score(right, own) for right, own in zip(references, answers, strict=True)]
    same = sum(right.split() == own.split() for right, own in zip(references, answers, strict=True))
    means = {name: sum(one[name].fmeasure for one in found) / len(found) for name in _ROUGE}
    return {**means, "exact_match": same / len(found)}


def best_constant(answers: Sequence[str]) -> str:
    """Of a few frequent answers, and of the most frequent words, what has the best mean ROUGE-1 with all.

    Args:
        answers: Of training data, at least one.
    """
    words = Counter(word for answer in answers for word in answer.lower().split())
    frequent = [word for word, _ in words.most_common(_CANDIDATES)]
    times = Counter(answers)
    candidates = [answer for answer, _ in times.most_common(_CANDIDATES)]
    candidates += [" ".join(frequent[: i + 1]) for i in range(len(frequent))]
    scorer = rouge.RougeScorer(["rouge1"])

    def value(constant: str) -> float:
        scores = ((scorer.score(answer, constant), number) for answer, number in times.items())
        return sum(found["rouge1"].fmeasure * number for found, number in scores)

    return max(candidates, key=value)
