"""Means (over seeds, problems) with 95% intervals, paired differences and trends."""

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = (
    "Estimate",
    "bootstrap_interval",
    "correlation",
    "mean_interval",
    "paired_difference",
    "rank_correlation",
)


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


def bootstrap_interval(
    statistic: Callable[[Sequence[int]], float], n_units: int, n_draws: int = 1000, seed: int = 0
) -> Estimate:
    """Return a statistic of units (runs) with its 95% percentile interval over redrawn units.

    Args:
        statistic: From the places of units, repeats allowed, to the number; draws for which it is NaN are left out.
        n_units: Number of units; the interval is infinite for a single one.
        n_draws: Redrawn samples.
        seed: Seed of the draws.

    Raises:
        ValueError: If there is no unit.
    """
    if n_units < 1:
        raise ValueError("no units to draw from.")
    value = statistic(range(n_units))
    if n_units == 1:
        return Estimate(value, -math.inf, math.inf, 1)
    draw = random.Random(seed)
    found = sorted(
        v
        for _ in range(n_draws)
        if not math.isnan(v := statistic(draw.choices(range(n_units), k=n_units)))
    )
    if not found:
        return Estimate(value, -math.inf, math.inf, n_units)
    low, high = (found[min(len(found) - 1, int(q * len(found)))] for q in (0.025, 0.975))
    return Estimate(value, low, high, n_units)


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Pearson's correlation; NaN where a sequence does not vary."""
    n = len(x)
    if n < 2:
        return math.nan
    a, b = ([v - math.fsum(values) / n for v in values] for values in (x, y))
    size = math.sqrt(math.fsum(v * v for v in a) * math.fsum(v * v for v in b))
    if size == 0:
        return math.nan
    return math.fsum(u * v for u, v in zip(a, b, strict=True)) / size


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Kendall's tau-b, +1 for a rising and -1 for a falling sequence."""
    from scipy.stats import kendalltau

    return float(kendalltau(x, y).statistic)
