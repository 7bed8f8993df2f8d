"""The value of the best of K attempts, from what is known of one."""

import math
from collections.abc import Sequence

from surefoot.reasoning.metrics.sampling import pass_at_k

__all__ = ("best_of_k", "best_of_k_covariance", "best_of_k_estimate")


def best_of_k(value: float, k: float) -> float:
    """Return ``1 - (1 - value)^k``, which is exact where the value is.

    Args:
        value: Probability that an attempt ends right, in [0, 1].
        k: Attempts, at least 1.

    Raises:
        ValueError: If an argument is out of range.

    Reference: Setlur et al. 2024, arXiv 2410.08146, section 3.2.
    """
    if not 0 <= value <= 1 or k < 1:
        raise ValueError(f"expected a value in [0, 1] and k >= 1, got {value} and {k}.")
    return -math.expm1(k * math.log1p(-value)) if value < 1 else 1.0


def best_of_k_estimate(values: Sequence[float], counts: Sequence[int], k: int) -> list[float]:
    """Return estimates of the value of the best of k attempts, from shares of correct attempts.

    From n attempts with n >= k the estimate is unbiased (that of pass@k). From fewer none is: ``1 - (1 - share)^k`` is
    too low on average, by about ``k (k - 1) / 2 * v (1 - v)^(k - 1) / n``, and is what is returned.

    Args:
        values: Shares of correct attempts, in [0, 1].
        counts: Attempts of each; 0 where the value is known exactly.
        k: Attempts of the policy that is asked for, at least 1.

    Raises:
        ValueError: If an argument is out of range, or a share is none of so many attempts.
    """
    found = []
    for value, n in zip(values, counts, strict=True):
        n_correct = round(value * n) if math.isfinite(value) else -1
        if n < 0 or (n > 0 and not abs(value * n - n_correct) <= 1e-6 * n):
            raise ValueError(f"{value} is no share of {n} attempts.")
        found.append(pass_at_k(n, n_correct, k) if n >= k else best_of_k(value, k))
    return found


def best_of_k_covariance(value: float, n: int, j: int, k: int) -> float:
    """Return an unbiased estimate of the covariance of two `best_of_k_estimate` that were made of the same attempts.

    With j = k it is the estimates' variance, and with both 1 the binomial one, ``value (1 - value) / (n - 1)``: the
    product of the estimated chances that j and that k attempts fail, less the estimated chance that j + k do.

    Args:
        value: Share of correct attempts, in [0, 1].
        n: Attempts, at least j + k; 0 where the value is known exactly, which does not vary.
        j: Attempts of the one policy, at least 1.
        k: Attempts of the other, at least 1.

    Raises:
        ValueError: If an argument is out of range.
    """
    if not 0 <= value <= 1 or min(j, k) < 1 or 0 < n < j + k:
        raise ValueError(f"expected a value in [0, 1] of at least j + k attempts, got {value} of {n}, j={j}, k={k}.")
    if n == 0:
        return 0.0
    n_wrong = n - round(value * n)
    failing = {m: math.comb(n_wrong, m) / math.comb(n, m) for m in (j, k, j + k)}
    return failing[j] * failing[k] - failing[j + k]
