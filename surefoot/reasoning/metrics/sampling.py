"""Accuracy of sampled answers: pass@k, maj@k, and intervals over problems."""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import TypeVar

from surefoot.reasoning.answers.equality import plain_verdict

__all__ = ("majority_at_k", "mean_over_subsets", "pass_at_k")


def pass_at_k(n_samples: int, n_correct: int, k: int) -> float:
    """Return the unbiased estimate of the probability that one of k samples is correct.

    Args:
        n_samples: Samples of the problem, at least k.
        n_correct: Correct ones among them.
        k: Samples that may be tried.

    Raises:
        ValueError: If the numbers make no sense.

    Reference: Chen et al. 2021, eq. 1.
    """
    if not 0 <= n_correct <= n_samples or not 1 <= k <= n_samples:
        raise ValueError(
            f"expected 0 <= correct <= samples and 1 <= k <= samples, got {n_correct}, {n_samples} and k={k}."
        )
    if n_samples - n_correct < k:
        return 1.0
    return 1.0 - math.comb(n_samples - n_correct, k) / math.comb(n_samples, k)


#: With so many subsets or fewer, all are taken.
_MAX_SUBSETS = 2000

Sample = TypeVar("Sample")


def mean_over_subsets(
    samples: Sequence[Sample], k: int, statistic: Callable[[Sequence[Sample]], float], n_draws: int, seed: int
) -> float:
    """Return the mean of a statistic of k samples: over all subsets where there are 2000 or fewer, else random ones.

    Args:
        samples: At least k.
        k: Size of a subset, at least 1.
        statistic: From k samples to the number.
        n_draws: Subsets that are drawn.
        seed: Seed of the draws.
    """
    n_subsets = math.comb(len(samples), k)
    if n_subsets <= _MAX_SUBSETS:
        subsets: Iterable[Sequence[Sample]] = combinations(samples, k)
        return math.fsum(map(statistic, subsets)) / n_subsets
    draw = random.Random(seed)
    return math.fsum(statistic(draw.sample(samples, k)) for _ in range(n_draws)) / n_draws


def majority_at_k(
    answers: Sequence[str | int | None],
    correct: Sequence[bool],
    k: int,
    n_draws: int = 1000,
    seed: int = 0,
) -> float:
    """Return the probability that the most frequent answer of k samples is correct.

    Samples without an answer do not vote. Tied answers win with equal probability. The mean is over all subsets of k
    samples where there are 2000 or fewer, else over random ones.

    Args:
        answers: Final answer of each sample, none where there is none: numbers of classes of equal answers
            (`Grader.classes`), or texts, of which correct ones and equal plain numbers are one answer.
        correct: Whether each is correct.
        k: Samples that vote.
        n_draws: Subsets that are drawn.
        seed: Seed of the draws.

    Raises:
        ValueError: If there are fewer than k samples.

    Reference: Wang et al. 2022, self-consistency.
    """
    n = len(answers)
    if not 1 <= k <= n:
        raise ValueError(f"maj@{k} of {n} samples.")
    votes = list(zip(_classes(answers, correct), correct, strict=True))
    return mean_over_subsets(votes, k, _majority, n_draws, seed)


def _classes(answers: Sequence[str | int | None], correct: Sequence[bool]) -> list[int | None]:
    """Return classes of equal answers; all that is correct is one."""
    known: dict[str | int, int] = {}
    classes: list[int | None] = []
    for answer, right in zip(answers, correct, strict=True):
        if answer is None:
            classes.append(None)
            continue
        key = answer.strip() if isinstance(answer, str) else answer
        if right:
            classes.append(0)
            continue
        if key not in known:
            equal = (
                number
                for other, number in known.items()
                if isinstance(key, str) and isinstance(other, str) and plain_verdict(other, key)
            )
            known[key] = next(equal, len(known) + 1)
        classes.append(known[key])
    return classes


def _majority(votes: Sequence[tuple[int | None, bool]]) -> float:
    counts = Counter(answer for answer, _ in votes if answer is not None)
    if not counts:
        return 0.0
    top = max(counts.values())
    winners = {answer for answer, n in counts.items() if n == top}
    right = {answer for answer, ok in votes if answer is not None and ok}
    return len(winners & right) / len(winners)
