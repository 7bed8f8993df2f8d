"""An empirical audit: how much of epsilon an attacker can demonstrably see.

A mechanism is run many times with and without a canary, an example made to be found. A threshold on the attacker's
score gives true and false positives, and Clopper-Pearson bounds on their rates give an epsilon that the mechanism
cannot be below. A correct mechanism passes (the bound stays at or below what it claims); one that clips nothing, or
adds too little noise, does not.

Reference: Jagielski, Ullman, Oprea, NeurIPS 2020; Nasr et al., IEEE S&P 2021.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ("Audit", "audit_mechanism", "clopper_pearson", "epsilon_lower_bound")


class Audit(NamedTuple):
    """What was seen."""

    epsilon_lower_bound: float  # with the confidence asked for
    claimed: float
    n_trials: int  # with the canary, and as many without

    @property
    def passes(self) -> bool:
        """Whether the mechanism may be what it claims to be."""
        return self.epsilon_lower_bound <= self.claimed


def clopper_pearson(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Return one-sided bounds on a rate, each of which holds with the confidence.

    Args:
        hits: Successes, in [0, n].
        n: Trials, at least 1.
        confidence: Of each bound, in (0, 1).

    Returns:
        The lower and the upper bound, in [0, 1].
    """
    from scipy.stats import beta

    low = 0.0 if hits == 0 else float(beta.ppf(1 - confidence, hits, n - hits + 1))
    high = 1.0 if hits == n else float(beta.ppf(confidence, hits + 1, n - hits))
    return low, high


def epsilon_lower_bound(
    scores_with: Float[Tensor, " trials"],
    scores_without: Float[Tensor, " trials"],
    delta: float,
    confidence: float = 0.95,
) -> float:
    """Return an epsilon that the mechanism is not below, with a confidence.

    The threshold is chosen on the first half of the trials and judged on the second, so that the choice costs no
    confidence. From ``TPR <= e^eps FPR + delta`` and its mirror image: ``eps >= log((TPR_low - delta) / FPR_high)``.

    Args:
        scores_with: Attacker's scores of runs with the canary, higher for a stronger trace, ``(trials,)``.
        scores_without: Scores of runs without it, ``(trials,)``.
        delta: Delta of the guarantee.
        confidence: Of the bound, in (0, 1).

    Returns:
        The bound, at least 0.

    Raises:
        ValueError: If there are fewer than four trials of either.
    """
    n = min(len(scores_with), len(scores_without))
    if n < 4:
        raise ValueError(f"an audit needs four trials with and without the canary, got {n}.")
    half = n // 2
    each = 1 - (1 - confidence) / 2  # two rates are bounded at once

    def bound(inside: Tensor, outside: Tensor, threshold: float, above: bool) -> float:
        hits, false = (int(((s > threshold) if above else (s <= threshold)).sum()) for s in (inside, outside))
        low = clopper_pearson(hits, len(inside), each)[0]
        high = clopper_pearson(false, len(outside), each)[1]
        return math.log((low - delta) / high) if low > delta else -math.inf

    first = scores_with[:half], scores_without[:half]
    tried = torch.cat(first).sort().values.tolist()
    candidates = [(bound(*first, t, True), t, True) for t in tried]
    candidates += [(bound(first[1], first[0], t, False), t, False) for t in tried]
    _, threshold, above = max(candidates)
    rest = scores_with[half:n], scores_without[half:n]
    judged = rest if above else (rest[1], rest[0])
    return max(0.0, bound(*judged, threshold, above))


def audit_mechanism(
    score: Callable[[bool, int], float],
    claimed: float,
    delta: float,
    n_trials: int = 1000,
    confidence: float = 0.95,
) -> Audit:
    """Run a mechanism with and without a canary and bound its epsilon from below.

    Args:
        score: From whether the canary is in, and the trial's number (a seed), to the attacker's score of what came out.
        claimed: Epsilon that the mechanism claims.
        delta: Its delta.
        n_trials: Runs with the canary, and as many without.
        confidence: Of the bound.
    """
    found = [
        torch.tensor([score(present, trial) for trial in range(n_trials)], dtype=torch.float64)
        for present in (True, False)
    ]
    bound = epsilon_lower_bound(found[0], found[1], delta, confidence)
    return Audit(bound, claimed, n_trials)
