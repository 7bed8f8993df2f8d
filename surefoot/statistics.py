"""Means and proportions (over seeds, problems) with 95% intervals, paired differences and trends."""

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
    "paired_proportion_difference",
    "proportion_interval",
    "rank_correlation",
    "wilson_interval",
)


#: Half of the standard normal's central 95%.
_Z = 1.959963984540054


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


def wilson_interval(n_successes: int, n: int) -> Estimate:
    """Return the share of successes among independent trials with Wilson's 95% interval, which lies in [0, 1].

    Args:
        n_successes: Successes.
        n: Trials, at least one.

    Raises:
        ValueError: If the numbers make no sense.

    Reference: Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4.
    """
    if not 0 <= n_successes <= n or n < 1:
        raise ValueError(f"expected 0 <= successes <= trials, 1 <= trials, got {n_successes}, {n}.")
    return Estimate(n_successes / n, *_wilson(n_successes / n, n, _Z), n)


def proportion_interval(
    values: Sequence[float],
    sizes: Sequence[int] | None = None,
    bounds: tuple[float, float] = (0, 1),
) -> Estimate:
    """Return the mean of proportions (one per seed, or per problem) with a 95% interval that never leaves [0, 1].

    Zeros and ones alone are independent trials and get Wilson's interval. Otherwise units are clusters: the interval is
    Wilson's with Student's t and with the number of trials that would have the variance observed between units,
    ``mean (1 - mean) / (variance / units)``. Where units do not vary, they count as that many trials each as ``sizes``
    says, or one; a single unit of unknown size has the interval [0, 1].

    Args:
        values: One value per unit, each within the bounds, at least one.
        sizes: Trials behind each value, where known: the interval is never narrower than that of as many independent
            trials.
        bounds: Smallest and largest possible value, where they are not 0 and 1.

    Raises:
        ValueError: If there is no value, one out of bounds or NaN, or another number of sizes.

    Reference: Dean and Pagano 2015, Evaluating confidence interval methods for binomial proportions in clustered
    surveys, sec. 2 (modified Wilson).
    """
    least, most = bounds
    wrong = [v for v in values if not least <= v <= most]
    if not values or wrong:
        raise ValueError(f"proportions from {least} to {most} expected, got {wrong[:3] or 'none'}.")
    if sizes is not None and (len(sizes) != len(values) or min(sizes) < 1):
        raise ValueError(f"a positive size for each of {len(values)} values expected, got {sizes}.")
    n = len(values)
    shares = [(v - least) / (most - least) for v in values]
    mean = math.fsum(shares) / n
    low, high = _clustered(shares, mean, sum(sizes) if sizes is not None else None)
    width = most - least
    return Estimate(math.fsum(values) / n, least + width * low, least + width * high, n)


def _clustered(shares: Sequence[float], mean: float, n_trials: int | None) -> tuple[float, float]:
    """Return the ends of Wilson's interval for the mean of shares in [0, 1]."""
    n = len(shares)
    if all(share in (0.0, 1.0) for share in shares) and n_trials in (None, n):
        return _wilson(mean, n, _Z)
    if n == 1:
        return (0.0, 1.0) if n_trials is None else _wilson(mean, n_trials, _Z)
    from scipy.stats import t

    variance = math.fsum((v - mean) ** 2 for v in shares) / (n - 1) / n
    if variance == 0:
        n_effective: float = n if n_trials is None else n_trials
    else:
        n_effective = mean * (1 - mean) / variance
        if n_trials is not None:
            n_effective = min(n_effective, n_trials)
    return _wilson(mean, n_effective, float(t.ppf(0.975, n - 1)))


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval; rounding cannot carry them past the share or out of [0, 1]."""
    square = quantile * quantile
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = quantile * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def paired_proportion_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Return the mean of ``first - second``, proportions of shared units, with a 95% interval within [-1, 1].

    Raises:
        ValueError: If the numbers of units differ, or a value is not a proportion.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values expected, got {len(first)} and {len(second)}.")
    return proportion_interval([a - b for a, b in zip(first, second, strict=True)], bounds=(-1, 1))


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
        statistic: From the units' indices, repeats allowed, to the number; draws for which it is NaN are left out.
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
    found = sorted(v for _ in range(n_draws) if not math.isnan(v := statistic(draw.choices(range(n_units), k=n_units))))
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
