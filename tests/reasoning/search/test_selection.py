"""Which answer is chosen, and how often it is right: against all subsets, and by hand."""

import math
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import DataError
from surefoot.reasoning.credit import EffectiveReward, progress
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.search import (
    Candidate,
    SearchCounts,
    accuracies,
    accuracy_of_best,
    accuracy_of_majority,
    accuracy_of_weighted_majority,
    score_of,
)
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory


def stepwise(values: list[float], counts: list[int] | None = None) -> Trajectory:
    n = len(values) - 1
    made = Trajectory(Problem("p", "1+1=", "2"), 0, [1, 2], list(range(n)), [-1.0] * n, "stop", 0)
    made.spans = [Span(i, i + 1) for i in range(n)]
    made.values, made.value_counts = values, counts or []
    return made


CANDIDATES = st.lists(
    st.builds(Candidate, st.booleans(), st.sampled_from([None, 0, 1, 2]), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    min_size=1,
    max_size=7,
)


@given(CANDIDATES, st.integers(1, 7))
def test_the_best_of_k_is_the_mean_over_all_subsets(candidates: list[Candidate], k: int) -> None:
    if k > len(candidates):
        with pytest.raises(ValueError, match="candidates"):
            accuracy_of_best(candidates, k)
        return
    shares = []
    for subset in combinations(candidates, k):
        top = [c.correct for c in subset if c.score == max(x.score for x in subset)]
        shares.append(sum(top) / len(top))
    assert accuracy_of_best(candidates, k) == pytest.approx(sum(shares) / len(shares))


@given(CANDIDATES, st.integers(1, 7))
def test_votes_are_the_means_over_all_subsets(candidates: list[Candidate], k: int) -> None:
    """Against every subset, its heaviest answers found by trying each; of one candidate all choices are the same."""
    if k > len(candidates):
        return
    for vote, weight_of in ((accuracy_of_majority, lambda c: 1.0), (accuracy_of_weighted_majority, lambda c: c.score)):
        # one number for what is right, as `Grader.classes` gives; what has no answer is not right
        read = [c._replace(answer=0 if c.correct else c.answer or None) for c in candidates]
        shares = []
        for subset in combinations(read, k):
            weights = {
                a: sum(weight_of(c) for c in subset if c.answer == a) for a in {c.answer for c in subset} - {None}
            }
            top = [a for a, weight in weights.items() if weight == max(weights.values())]
            shares.append(top.count(0) / len(top) if top else 0.0)
        assert vote(read, k) == pytest.approx(sum(shares) / len(shares))
        if k == 1:
            assert vote(read, k) == pytest.approx(accuracy_of_best(read, 1))


def test_draws_of_many_subsets_are_others_for_each_problem() -> None:
    """Of 40 candidates there are 91390 subsets of 4: the same draws twice would err alike, and their mean as one."""
    own = [Candidate(i % 3 == 0, 0 if i % 3 == 0 else i % 5 + 1, (i % 7) / 7) for i in range(40)]
    once, twice = (
        {p.selection: p.accuracy.mean for p in accuracies([own] * n, 4, SearchCounts(generated_tokens=1))}
        for n in (1, 2)
    )
    for vote in ("majority", "weighted_majority"):
        assert 0 < abs(once[vote] - twice[vote]) < 0.05
    assert once["best"] == twice["best"]


def test_votes_by_hand() -> None:
    """Two wrong votes of .2 outvote a right one of .9 by number, and not by weight."""
    candidates = [
        Candidate(False, 1, 0.2),
        Candidate(False, 1, 0.2),
        Candidate(True, 0, 0.9),
        Candidate(False, None, 1.0),
    ]
    assert accuracy_of_majority(candidates, 4) == 0.0
    assert accuracy_of_weighted_majority(candidates, 4) == 1.0
    assert accuracy_of_best(candidates, 4) == 0.0, "the best-scored one has no answer"
    # of the pairs of the first three, two hold the right one, which then has more weight
    assert accuracy_of_weighted_majority(candidates[:3], 2) == pytest.approx(2 / 3)
    tied = [Candidate(True, 0, 0.5), Candidate(False, 1, 0.5)]
    assert accuracy_of_weighted_majority(tied, 2) == 0.5
    assert accuracy_of_weighted_majority([Candidate(False, None, 1.0)], 1) == 0.0
    with pytest.raises(ValueError, match="at least 0"):
        accuracy_of_weighted_majority([Candidate(True, 0, -1.0)], 1)
    with pytest.raises(ValueError, match="no number"):
        accuracy_of_best([Candidate(True, 0, math.nan)], 1)


def test_what_steps_are_worth() -> None:
    """Best of 2 of .5 is .75, of .2 .36, of 1 is 1: advantages -.39 and .64; with alpha .5: .2 - .195 and 1 + .32."""
    found = stepwise([0.5, 0.2, 1.0])
    assert progress(found, 1) == pytest.approx([-0.3, 0.8])
    assert progress(found, 2) == pytest.approx([-0.39, 0.64])
    assert EffectiveReward()(found) == [0.2, 1.0]
    assert EffectiveReward(0.5, 2)(found) == pytest.approx([0.005, 1.32])
    for aggregate, expected in (("last", 1.0), ("min", 0.2), ("mean", 0.6), ("product", 0.2)):
        assert score_of(found, aggregate=aggregate) == pytest.approx(expected)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no values"):
        score_of(stepwise([0.5]))


@pytest.mark.parametrize(
    ("values", "counts", "message"),
    [
        ([0.5, math.nan, 1.0], None, r"expected a value in \[0, 1\] and k >= 1, got nan and 2"),
        ([0.5, 1.5, 1.0], None, "got 1.5 and 2"),
        ([0.5, 0.3, 1.0], [4, 4, 0], "0.3 is no share of 4 attempts"),
        ([0.5, math.nan, 1.0], [4, 4, 0], "nan is no share of 4 attempts"),
        ([0.5, math.inf, 1.0], [4, 4, 0], "inf is no share of 4 attempts"),
    ],
)
def test_values_that_have_no_best_of_k_are_named(values: list[float], counts: list[int] | None, message: str) -> None:
    with pytest.raises(DataError, match=rf"a completion of problem p has the values .*the best of 2 .*{message}"):
        EffectiveReward(0.5, 2)(stepwise(values, counts))


def test_sampled_values_give_unbiased_advantages() -> None:
    """Of 4 attempts with 2 right, two are both wrong in 1 of 6 pairs: 5/6, not 3/4."""
    found = stepwise([0.5, 0.25, 0.0], [4, 4, 0])
    assert progress(found, 2) == pytest.approx([1 / 2 - 5 / 6, 0 - 1 / 2])


@pytest.mark.parametrize("n", [3, 8, 16, 32, 64])
def test_right_candidates_are_right_with_a_probability_of_one(n: int) -> None:
    candidates = [Candidate(float(score), True, 7) for score in range(n)]
    for k in range(1, n + 1):
        assert accuracy_of_best(candidates, k) == pytest.approx(1, abs=1e-12)
        assert accuracy_of_best(candidates, k) <= 1
