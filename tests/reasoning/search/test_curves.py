"""Accuracy against tokens: how many tokens reach an accuracy, and the accuracy at so many tokens."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.reasoning.search import SearchPoint, accuracy_at, compute_ratio, tokens_to_reach, up_to_best
from surefoot.report.search_curves import describe_search
from surefoot.statistics import Estimate


def curve(points: dict[float, float]) -> list[SearchPoint]:
    """Return a curve of tokens -> accuracy."""
    return [SearchPoint("best", i + 1, Estimate(a, 0, 1, 9), t, 0.0) for i, (t, a) in enumerate(points.items())]


def test_between_points_the_logarithm_of_tokens_counts() -> None:
    points = curve({10: 0.2, 1000: 0.6})
    assert accuracy_at(points, 100) == pytest.approx(0.4)
    assert tokens_to_reach(points, 0.4) == pytest.approx(100)
    assert (accuracy_at(points, 1), accuracy_at(points, 5000)) == (0.2, 0.6)
    assert tokens_to_reach(points, 0.1) == 10
    assert tokens_to_reach(points, 0.7) is None


def test_tokens_are_compared_at_the_baselines_last_accuracy() -> None:
    baseline = curve({100: 0.3, 400: 0.5})
    assert compute_ratio(curve({10: 0.3, 1000: 0.7}), baseline) == pytest.approx(4)
    assert compute_ratio(curve({10: 0.3, 1000: 0.4}), baseline) is None


def test_a_ratio_that_is_only_a_bound_is_printed_as_one() -> None:
    """A search that begins above the baseline's last accuracy may need fewer tokens still."""
    baseline = curve({100: 0.3, 400: 0.5})
    for points, said in (
        ({10: 0.5, 1000: 0.7}, "0.500 at N = 2: at least 40.00 times fewer generated tokens"),
        ({10: 0.3, 1000: 0.7}, "0.500 at N = 2: 4.00 times fewer generated tokens"),
        ({10: 0.3, 1000: 0.4}, "0.500 at N = 2: not reached"),
    ):
        assert describe_search(curve(points), baseline).endswith(said)


def test_a_baseline_that_gets_worse_with_more_candidates_is_compared_at_its_best_too() -> None:
    baseline = curve({100: 0.3, 400: 0.6, 1600: 0.2})
    assert up_to_best(baseline) == baseline[:2]
    said = describe_search(curve({10: 0.3, 1000: 0.7}), baseline).splitlines()[-2:]
    assert said == [
        "best: the baseline's 0.200 at N = 3: at least 160.00 times fewer generated tokens",
        "best: the baseline's 0.600 at N = 2: 1.26 times fewer generated tokens",
    ]


@given(st.lists(st.floats(0.01, 0.2), min_size=2, max_size=5), st.floats(0.01, 0.99))
def test_both_readings_of_a_rising_curve_agree(steps: list[float], part: float) -> None:
    accuracies = [sum(steps[: i + 1]) for i in range(len(steps))]
    points = curve({math.exp(i): a for i, a in enumerate(accuracies)})
    wanted = accuracies[0] + part * (accuracies[-1] - accuracies[0])
    tokens = tokens_to_reach(points, wanted)
    assert tokens is not None
    assert accuracy_at(points, tokens) == pytest.approx(wanted)
