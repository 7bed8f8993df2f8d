"""Means (over seeds, problems) with 95% intervals, paired differences and trends."""

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ("Estimate", "mean_interval", "paired_difference", "rank_correlation")


class Estimate(NamedTuple):
    """A mean over seeds and its 95% interval."""

    mean: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float]) -> Estimate:
    """Return mean and 95% interval by Student's t; the interval is infinite for a single value.

    Args:
        values: One value per seed, at least one.

    Raises:
        ValueError: If there is no value.
    """
    if not values:
        raise ValueError("no values to average.")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    from scipy.stats import t

    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean of ``first - second`` over shared seeds with its 95% interval.

    Raises:
        ValueError: If the numbers of seeds differ.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values expected, got {len(first)} and {len(second)}.")
    return mean_interval([a - b for a, b in zip(first, second, strict=True)])


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Kendall's tau-b, +1 for a rising and -1 for a falling sequence."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)
