"""Accuracy against the number of candidates and against the tokens that they took."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from surefoot.reasoning.metrics import pass_at_k
from surefoot.reasoning.search.base import SearchCounts
from surefoot.reasoning.search.selection import (
    Candidate,
    accuracy_of_best,
    accuracy_of_majority,
    accuracy_of_weighted_majority,
)
from surefoot.statistics import Estimate, proportion_interval
from surefoot.training.seeds import derive_seed

__all__ = ("SearchPoint", "accuracies", "accuracy_at", "begins_above", "compute_ratio", "tokens_to_reach", "up_to_best")


class SearchPoint(NamedTuple):
    """How often one way of choosing among N candidates is right."""

    selection: str
    n: int
    accuracy: Estimate  # interval over problems
    generated_tokens: float  # per problem
    scored_tokens: float  # per problem


def accuracies(
    problems: Sequence[Sequence[Candidate]], n: int, counts: SearchCounts, share: float = 1.0, scored: bool = True
) -> list[SearchPoint]:
    """Return the accuracy of every selection from n candidates of each problem.

    ``pass`` is right where any candidate is; ``majority`` and ``weighted_majority`` vote on the answer; ``best`` has
    the highest score, ``best_progress`` the steps that are worth most together. Where a problem has more candidates,
    which must then be independent, all subsets of n count alike; votes are over random ones where there are many, which
    are others for each problem.

    Args:
        problems: Candidates of each problem, at least one.
        n: Candidates that are chosen from; where there are fewer, as a beam search may find, all of them.
        counts: What all candidates of all problems took.
        share: Of the counts that n candidates take.
        scored: Whether candidates have scores.
    """
    kept = [(own, min(n, len(own))) for own in problems]
    seeds = [derive_seed("subsets", i) for i in range(len(kept))]
    found = {
        "pass": [pass_at_k(len(own), sum(c.correct for c in own), k) for own, k in kept],
        "majority": [accuracy_of_majority(own, k, seed) for (own, k), seed in zip(kept, seeds, strict=True)],
    }
    if scored:
        found["weighted_majority"] = [
            accuracy_of_weighted_majority(own, k, seed=seed) for (own, k), seed in zip(kept, seeds, strict=True)
        ]
        found["best"] = [accuracy_of_best(own, k) for own, k in kept]
    ranked = [[c._replace(score=c.progress) for c in own if c.progress is not None] for own in problems]
    if all(ranked):
        found["best_progress"] = [accuracy_of_best(own, k) for own, (_, k) in zip(ranked, kept, strict=True)]
    generated, verified = (x * share / len(problems) for x in (counts.generated_tokens, counts.scored_tokens))
    reads_scores = {"weighted_majority", "best", "best_progress"}
    return [
        SearchPoint(name, n, proportion_interval(shares), generated, verified if name in reads_scores else 0.0)
        for name, shares in found.items()
    ]


def begins_above(points: Sequence[SearchPoint], accuracy: float) -> bool:
    """Return whether a curve's first point reaches an accuracy, so that how many tokens it needs is known as a bound.

    Args:
        points: Of one selection, at least one.
        accuracy: To be reached.
    """
    return min(points, key=lambda p: p.generated_tokens).accuracy.mean >= accuracy


def tokens_to_reach(points: Sequence[SearchPoint], accuracy: float) -> float | None:
    """Return how many generated tokens per problem a curve needs for an accuracy; none where it never reaches it.

    Between two points the logarithm of the tokens is interpolated; a curve that `begins_above` needs at most its first
    point's, which are returned.

    Args:
        points: Of one selection, at least one.
        accuracy: To be reached.
    """
    rising = sorted(points, key=lambda p: p.generated_tokens)
    if begins_above(points, accuracy):
        return rising[0].generated_tokens
    for a, b in pairwise(rising):
        if b.accuracy.mean >= accuracy:
            part = (accuracy - a.accuracy.mean) / (b.accuracy.mean - a.accuracy.mean)
            logs = [math.log(p.generated_tokens) for p in (a, b)]
            return math.exp(logs[0] + part * (logs[1] - logs[0]))
    return None


def accuracy_at(points: Sequence[SearchPoint], tokens: float) -> float:
    """Return the accuracy of a curve at so many generated tokens per problem.

    Between two points it is linear in the logarithm of the tokens; beyond the ends it is that of the end.

    Args:
        points: Of one selection, at least one.
        tokens: Per problem.
    """
    rising = sorted(points, key=lambda p: p.generated_tokens)
    if tokens <= rising[0].generated_tokens:
        return rising[0].accuracy.mean
    for a, b in pairwise(rising):
        if tokens <= b.generated_tokens:
            low, high, own = (math.log(x) for x in (a.generated_tokens, b.generated_tokens, tokens))
            return a.accuracy.mean + (own - low) / (high - low) * (b.accuracy.mean - a.accuracy.mean)
    return rising[-1].accuracy.mean


def compute_ratio(points: Sequence[SearchPoint], baseline: Sequence[SearchPoint]) -> float | None:
    """Return how many times fewer tokens a search generates for the accuracy of a baseline at its largest N.

    None where the search does not reach it, and a lower bound where it `begins_above` it. Steps that were sampled and
    dropped count.

    Args:
        points: Of the search.
        baseline: Of the other one, such as best of N.

    Reference: Setlur et al. 2024, arXiv 2410.08146, section 4.1 (baseline: best of 128 by an outcome reward model).
    """
    last = max(baseline, key=lambda p: p.n)
    needed = tokens_to_reach(points, last.accuracy.mean)
    return None if needed is None else last.generated_tokens / needed


def up_to_best(points: Sequence[SearchPoint]) -> list[SearchPoint]:
    """Return a curve up to its most accurate number of candidates, from where on more of them only cost.

    Args:
        points: Of one selection, at least one.
    """
    best = max(points, key=lambda p: (p.accuracy.mean, -p.n))
    return [p for p in points if p.n <= best.n]
