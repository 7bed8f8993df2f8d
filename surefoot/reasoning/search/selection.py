"""Which of a problem's candidates is the answer, and how often that is right."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from surefoot.reasoning.credit import EffectiveReward
from surefoot.reasoning.metrics import majority_at_k, mean_over_subsets
from surefoot.reasoning.trajectories import Trajectory

__all__ = (
    "Aggregate",
    "Candidate",
    "accuracy_of_best",
    "accuracy_of_majority",
    "accuracy_of_weighted_majority",
    "score_of",
)

#: How the scores of a completion's steps become one.
Aggregate = Literal["last", "min", "mean", "product"]
_AGGREGATES: Mapping[Aggregate, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "mean": lambda scores: math.fsum(scores) / len(scores),
    "product": math.prod,
}


def score_of(trajectory: Trajectory, step_score: EffectiveReward | None = None, aggregate: Aggregate = "last") -> float:
    """Return the score of a whole completion, to rank it by.

    Args:
        trajectory: With values.
        step_score: What a step is worth by them; by default its value.
        aggregate: How steps make a whole. The last step's value is an outcome reward model's score.

    Raises:
        ValueError: If it has no values.
    """
    if len(trajectory.values) < 2:
        raise ValueError(f"a completion of problem {trajectory.problem.id} has no values of its steps.")
    return _AGGREGATES[aggregate]((step_score or EffectiveReward())(trajectory))


class Candidate(NamedTuple):
    """What selection reads of an answer."""

    correct: bool
    answer: int | None  # equal answers have one number, as `Grader.classes` gives them; none does not vote
    score: float = 0.0  # the value of its last step
    progress: float | None = None  # what its steps are worth together, where that is asked for


def accuracy_of_best(candidates: Sequence[Candidate], k: int) -> float:
    """Return the probability that the best-scored of k candidates is correct, over all subsets of k.

    Tied candidates win with equal probability.

    Args:
        candidates: Of one problem, sampled independently.
        k: How many of them are seen.

    Raises:
        ValueError: If there are fewer, or a score is no number.
    """
    n = len(candidates)
    _check(candidates, k)
    by_score: dict[float, list[bool]] = defaultdict(list)
    for c in candidates:
        by_score[c.score].append(c.correct)
    chances, below = [0.0], n
    for score in sorted(by_score, reverse=True):
        tied = by_score[score]
        below -= len(tied)
        # subsets whose best score is this one: those without a better one, less those without this one too
        chance = (math.comb(below + len(tied), k) - math.comb(below, k)) / math.comb(n, k)
        chances.append(chance * sum(tied) / len(tied))
    return min(1.0, math.fsum(chances))  # chances of 1 in all may be rounded up


def accuracy_of_majority(candidates: Sequence[Candidate], k: int, seed: int = 0) -> float:
    """Return the probability that the most frequent answer of k candidates is correct; see `majority_at_k`."""
    _check(candidates, k)
    return majority_at_k([c.answer for c in candidates], [c.correct for c in candidates], k, seed=seed)


def accuracy_of_weighted_majority(candidates: Sequence[Candidate], k: int, n_draws: int = 1000, seed: int = 0) -> float:
    """Return the probability that the answer with the largest sum of scores is correct, over subsets of k.

    Tied answers win with equal probability; answers whose sum is 0 can only win against each other. The mean is over
    all subsets where there are 2000 or fewer, else over random ones.

    Args:
        candidates: Of one problem; scores are at least 0, as values are.
        k: How many of them are seen.
        n_draws: Subsets that are drawn.
        seed: Seed of the draws.

    Raises:
        ValueError: If there are fewer, or a score is negative or no number.

    Reference: Li et al. 2022, arXiv 2206.02336 (a vote weighted by a verifier).
    """
    _check(candidates, k)
    if any(c.score < 0 for c in candidates):
        raise ValueError("votes are weighted with scores of at least 0.")
    return mean_over_subsets(candidates, k, _weighted_majority, n_draws, seed)


def _weighted_majority(candidates: Sequence[Candidate]) -> float:
    sums: dict[int, list[float]] = defaultdict(list)
    for c in candidates:
        if c.answer is not None:
            sums[c.answer].append(c.score)
    totals = {answer: math.fsum(scores) for answer, scores in sums.items()}
    if not totals:
        return 0.0
    winners = {answer for answer, total in totals.items() if total == max(totals.values())}
    right = {c.answer for c in candidates if c.correct}
    return len(winners & right) / len(winners)


def _check(candidates: Sequence[Candidate], k: int) -> None:
    if not 1 <= k <= len(candidates):
        raise ValueError(f"{k} of {len(candidates)} candidates.")
    if any(math.isnan(c.score) for c in candidates):
        raise ValueError("a score is no number.")
