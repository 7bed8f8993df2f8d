"""How error falls with the number of training problems, and how many problems a method saves."""

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import linear_regression
from typing import NamedTuple

__all__ = ("DataEfficiency", "data_efficiency", "scaling_exponent")


class DataEfficiency(NamedTuple):
    """How many times more problems a baseline needs for the same error."""

    ratio: float
    is_bound: bool  # whether the baseline's curve ends before that error: the ratio is then that of its end


def scaling_exponent(sizes: Sequence[float], errors: Sequence[float]) -> float:
    """Return the exponent of the power law ``error = c * size ** exponent`` by least squares on logarithms.

    Args:
        sizes: Numbers of training problems, at least two different ones.
        errors: Of models trained on as many, each above 0.

    Raises:
        ValueError: If a number is not positive, or there are fewer than two sizes.

    Reference: Hestness et al. 2017, arXiv 1712.00409.
    """
    _check(sizes, errors)
    return linear_regression([math.log(n) for n in sizes], [math.log(e) for e in errors]).slope


def data_efficiency(sizes: Sequence[float], errors: Sequence[float], size: float, error: float) -> DataEfficiency:
    """Return how many times more problems the baseline needs than a method for the method's error.

    The baseline's curve is interpolated in logarithms of sizes and errors, after noise that would let it rise is
    averaged out: the closest curve that nowhere rises (isotonic regression). Where it is flat the fewest problems
    count.

    Args:
        sizes: Numbers of the baseline's training problems, ascending.
        errors: The baseline's, each above 0.
        size: Number of the method's training problems.
        error: The method's.

    Raises:
        ValueError: If a number is not positive, there are fewer than two sizes, or these do not ascend.

    Reference: Setlur et al. 2024, arXiv 2406.14532, figure 1 (RFT 2, per-step DPO 8).
    """
    import numpy as np
    from scipy.optimize import isotonic_regression

    _check(sizes, errors)
    if any(a >= b for a, b in pairwise(sizes)) or not all(0 < v < math.inf for v in (size, error)):
        raise ValueError(
            f"expected ascending sizes, and a size and an error above 0; got {list(sizes)}, {size}, {error}."
        )
    curve = isotonic_regression(np.log(errors), increasing=False).x
    wanted = math.log(error)
    if wanted > curve[0] or wanted < curve[-1]:
        end = sizes[0] if wanted > curve[0] else sizes[-1]
        return DataEfficiency(end / size, is_bound=True)
    i = next(i for i, value in enumerate(curve) if value <= wanted)
    if i == 0 or curve[i] == wanted:
        return DataEfficiency(sizes[i] / size, is_bound=False)
    share = (curve[i - 1] - wanted) / (curve[i - 1] - curve[i])
    needed = math.exp(math.log(sizes[i - 1]) + share * (math.log(sizes[i]) - math.log(sizes[i - 1])))
    return DataEfficiency(needed / size, is_bound=False)


def _check(sizes: Sequence[float], errors: Sequence[float]) -> None:
    if len(sizes) != len(errors) or len(set(sizes)) < 2 or not all(0 < v < math.inf for v in (*sizes, *errors)):
        raise ValueError(
            "expected as many sizes as errors, of two sizes or more, each finite and above 0; got"
            f" {list(sizes)} and {list(errors)}."
        )
