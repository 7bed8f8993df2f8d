"""Accuracy of sampled answers: pass@k, maj@k, and intervals over problems."""

import math
import random
from collections import Counter
from collections.abc import Sequence

__all__ = ("majority_at_k", "pass_at_k")


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


def majority_at_k(
    answers: Sequence[str | None],
    correct: Sequence[bool],
    k: int,
    n_draws: int = 200,
    seed: int = 0,
) -> float:
    """Return the probability that the most frequent answer of k samples is correct.

    Samples without an answer do not vote. Tied answers win with equal probability. With k below the number of samples the
    mean over random subsets is taken.

    Args:
        answers: Final answer of each sample, compared as text; none where there is none.
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
    if k == n:
        return _majority(list(zip(answers, correct, strict=True)))
    draw = random.Random(seed)
    pairs = list(zip(answers, correct, strict=True))
    return math.fsum(_majority(draw.sample(pairs, k)) for _ in range(n_draws)) / n_draws


def _majority(votes: Sequence[tuple[str | None, bool]]) -> float:
    counts = Counter(a.strip() for a, _ in votes if a is not None)
    if not counts:
        return 0.0
    top = max(counts.values())
    winners = {a for a, n in counts.items() if n == top}
    right = {a.strip() for a, ok in votes if a is not None and ok}
    return len(winners & right) / len(winners)
