"""pass@k and maj@k: enumerated by hand and by brute force, intervals over problems."""

from itertools import combinations

import pytest

from surefoot.reasoning.metrics import ProblemResult, majority_at_k, pass_at_k, summarise_results


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 4), (6, 6, 2), (8, 1, 8), (7, 3, 5)])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n: int, c: int, k: int) -> None:
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(s) for s in subsets) / len(subsets), rel=1e-12)


def test_pass_at_k_refuses_nonsense() -> None:
    with pytest.raises(ValueError, match="got 3, 2 and k=1"):
        pass_at_k(2, 3, 1)
    with pytest.raises(ValueError, match="k=5"):
        pass_at_k(4, 1, 5)


def test_majority() -> None:
    assert majority_at_k(["1", "2", "2", None], [False, True, True, False], 4) == 1.0
    assert majority_at_k(["1", "2"], [False, True], 2) == 0.5, "a tie is drawn"
    assert majority_at_k([None, None], [False, False], 2) == 0.0
    assert majority_at_k(["1", " 1 ", "2"], [False, False, True], 3) == 0.0
    found = majority_at_k(["1"] * 3 + ["2"] * 2, [True] * 3 + [False] * 2, 3, n_draws=4000)
    exact = sum(sum(s) >= 2 for s in combinations([1, 1, 1, 0, 0], 3)) / 10
    assert found == pytest.approx(exact, abs=0.04)


def test_summary_counts_problems_not_samples() -> None:
    """Two problems with 1 of 2 and 2 of 2 correct: accuracy .75; pass@2 1.

    The variance of the mean is .0625, that of .75 * .25 / .0625 = 3 trials: Wilson's interval for them with t of one
    degree of freedom.
    """
    results = [
        ProblemResult("a", ["correct", "wrong"], ["1", "2"], [3, 5], [False, True], 3),
        ProblemResult("b", ["correct", "correct"], ["1", "1"], [4, 4], [False, False], 4),
    ]
    summary = summarise_results(results)
    assert summary["accuracy"] == 0.75
    for end in (summary["accuracy_low"], summary["accuracy_high"]):
        assert (end - 0.75) ** 2 == pytest.approx(12.706205**2 * end * (1 - end) / 3, rel=1e-6)
    assert summary["pass@2"] == summary["pass@2_high"] == 1.0
    assert summary["pass@2_low"] == pytest.approx(2 / (2 + 1.959964**2), rel=1e-6)
    assert summary["maj@2"] == 0.75
    assert (summary["accuracy_steps_3"], summary["accuracy_steps_4"]) == (0.5, 1.0)
    assert (summary["tokens"], summary["share_truncated"]) == (4.0, 0.25)
    assert (summary["grade_correct"], summary["grade_wrong"], summary["grade_timeout"]) == (
        0.75,
        0.25,
        0.0,
    )
    with pytest.raises(ValueError, match="no results"):
        summarise_results([])


def test_equal_answers_share_their_votes() -> None:
    """1/2 and 0.5 are one answer, right or wrong: two votes against one."""
    assert majority_at_k(["1/2", "0.5", "3", "3", "50%"], [True, True, False, False, True], 5) == 1.0
    assert majority_at_k(["1/2", "0.5", "3"], [False, False, True], 3) == 0.0
    assert majority_at_k([1, 1, 2, None], [False, False, True, False], 4) == 0.0


def test_few_subsets_are_all_taken() -> None:
    exact = sum(sum(s) >= 2 for s in combinations([1, 1, 1, 0, 0], 3)) / 10
    found = majority_at_k(["1"] * 3 + ["2"] * 2, [True] * 3 + [False] * 2, 3)
    assert found == pytest.approx(exact, rel=1e-12)


def test_many_subsets_are_drawn_with_a_seed() -> None:
    votes = (["1"] * 12 + ["2"] * 12, [True] * 12 + [False] * 12)
    assert majority_at_k(*votes, 12) == majority_at_k(*votes, 12) != majority_at_k(*votes, 12, seed=1)
    assert majority_at_k(*votes, 12) == pytest.approx(0.5, abs=0.07)
