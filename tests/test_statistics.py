"""Intervals of proportions: textbook values, clusters against a simulation, and bounds that are never left."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from surefoot.statistics import (
    mean_interval,
    paired_proportion_difference,
    proportion_interval,
    wilson_interval,
)


def test_wilson() -> None:
    """9 of 10: the ends solve (p - .9)^2 = z^2 p (1 - p) / 10."""
    found = wilson_interval(9, 10)
    assert (found.mean, found.n) == (0.9, 10)
    for end in (found.low, found.high):
        assert (end - 0.9) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 10, rel=1e-6)
    assert wilson_interval(3, 3).low == pytest.approx(3 / (3 + 1.959964**2), rel=1e-6)
    assert wilson_interval(3, 3).high == 1.0
    assert wilson_interval(0, 5).low == 0.0
    with pytest.raises(ValueError, match="got 3, 2"):
        wilson_interval(3, 2)


def test_zeros_and_ones_are_independent_trials() -> None:
    assert proportion_interval([1.0] * 9 + [0.0]) == wilson_interval(9, 10)
    assert proportion_interval([1.0] * 3) == wilson_interval(3, 3)


def test_clusters_are_as_wide_as_what_varies_between_them() -> None:
    """Far from the bounds, with many units, Wilson's interval is the mean's own; near them it is not symmetric."""
    draw = random.Random(0)
    values = [draw.choice([0.25, 0.5, 0.75]) for _ in range(400)]
    ours, theirs = proportion_interval(values), mean_interval(values)
    assert ours.mean == theirs.mean
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-4)
    near = proportion_interval([0.99, 1.0, 0.98, 1.0, 0.97])
    assert near.mean - near.low > near.high - near.mean > 0


def test_units_that_do_not_vary_still_leave_doubt() -> None:
    """Nothing but their size narrows the interval: 3 trials, or 3 x 1000, by t with two degrees of freedom."""
    alone, sized = proportion_interval([0.5] * 3), proportion_interval([0.5] * 3, [1000] * 3)
    assert 0 < alone.low < 0.1
    half = 4.302653 / math.sqrt(4 * (3000 + 4.302653**2))
    assert (sized.low, sized.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-6)
    assert proportion_interval([0.5]) == (0.5, 0.0, 1.0, 1)
    low, high = proportion_interval([0.9], [10])[1:3]
    assert (low, high) == wilson_interval(9, 10)[1:3]


def test_the_interval_covers_the_truth() -> None:
    """30 problems of uniform success rates, 4 samples each: 95% of the intervals hold .5, up to 3 sd of 600 draws."""
    draw = random.Random(1)
    n_held = 0
    for _ in range(600):
        rates = [draw.random() for _ in range(30)]
        found = proportion_interval([sum(draw.random() < r for _ in range(4)) / 4 for r in rates])
        n_held += found.low <= 0.5 <= found.high
    assert abs(n_held / 600 - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 600)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_bounds_are_never_left(values: list[float]) -> None:
    found = proportion_interval(values)
    assert 0 <= found.low <= found.mean + 1e-15
    assert found.mean - 1e-15 <= found.high <= 1
    if len(values) > 1:
        assert found.low < found.high
    difference = paired_proportion_difference(values, values[::-1])
    assert -1 <= difference.low <= difference.high <= 1


def test_what_is_no_proportion_is_refused() -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1 expected, got \[1.2\]"):
        proportion_interval([0.5, 1.2])
    with pytest.raises(ValueError, match="nan"):
        proportion_interval([math.nan])
    with pytest.raises(ValueError, match="got none"):
        proportion_interval([])
    with pytest.raises(ValueError, match="a positive size"):
        proportion_interval([0.5, 0.6], [3])
    with pytest.raises(ValueError, match="paired values expected, got 1 and 2"):
        paired_proportion_difference([0.5], [0.5, 0.6])
