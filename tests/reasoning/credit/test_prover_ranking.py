"""Provers ranked from labelled completions: by hand, against naive loops, without bias, and what is refused."""

import itertools
import math
from collections.abc import Sequence

import pytest

from surefoot.errors import DataError
from surefoot.reasoning.credit import rank_provers
from surefoot.reasoning.metrics import best_of_k, best_of_k_covariance, best_of_k_estimate
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory


def completion(tokens: list[int], values: list[float], n: int = 0, problem: str = "p") -> Trajectory:
    """A completion of steps of one token; each value but the last is the share of n attempts, or exact."""
    made = Trajectory(Problem(problem, "1+1=", "2"), 0, [9, 9], tokens, [-1.0] * len(tokens), "stop", 0)
    made.spans = [Span(i, i + 1) for i in range(len(tokens))]
    made.values, made.value_counts = values, [*[n] * len(tokens), 0]
    return made


def completions(paths: Sequence[list[int]], values: Sequence[list[float]], n: int = 0) -> list[Trajectory]:
    return [completion(p, v, n) for p, v in zip(paths, values, strict=True)]


PATHS = ([1, 3], [1, 4], [2, 3])


def test_provers_are_ranked_from_exact_values() -> None:
    """At the root steps 1 (.5), 1 and 2 (.2), variance .03; after 1 the steps 3 (1) and 4 (0), variance .5.

    The root is visited three times, the other state twice. A prover that sees nothing is in the middle.
    """
    own = completions(PATHS, ([0.4, 0.5, 1], [0.4, 0.5, 0], [0.4, 0.2, 0]))
    blind = completions(PATHS, [[0.3, 0.3, 0.3]] * 3)
    against = completions(PATHS, ([0.4, 0.2, 0], [0.4, 0.2, 1], [0.4, 0.5, 1]))
    ranked = rank_provers(own, {"blind": (blind, [1]), "against": (against, [1]), "itself": (own, [1, 2])})
    assert [(p.name, p.k) for p in ranked] == [("itself", 2), ("itself", 1), ("blind", 1), ("against", 1)]
    found = {(p.name, p.k): p.quality for p in ranked}
    assert found["blind", 1].improvement.mean == 0
    assert found["itself", 1].distinguishability.mean == pytest.approx((3 * 0.03 + 2 * 0.5) / 5)
    assert found["itself", 1].alignment.mean == pytest.approx((3 * 0.03 + 2 * 0.5) / 5)
    assert found["against", 1].alignment.mean == pytest.approx(-(3 * 0.03 + 2 * 0.5) / 5)
    # best of 2: .75, .75 and .36, variance .39^2 / 3 = .0507; covariance of .39 and .3 is .039
    assert found["itself", 2].distinguishability.mean == pytest.approx((3 * 0.0507 + 2 * 0.5) / 5)
    assert found["itself", 2].alignment.mean == pytest.approx((3 * 0.039 + 2 * 0.5) / 5)
    assert {(p.n_states, p.n_steps, p.quality.improvement.n) for p in ranked} == {(2, 5, 1)}


def test_a_step_counts_as_often_as_it_was_sampled() -> None:
    rare = [completion([1], [0.5, 0.5])] * 99 + [completion([2], [0.5, 1.0])]
    (seen,) = rank_provers(rare, {"itself": (rare, [1])})
    assert seen.quality.distinguishability.mean == pytest.approx(0.0025), "one step in a hundred, not one of two"


def test_noise_is_subtracted_by_hand() -> None:
    """One state, steps 1, 1 and 2, with 1 of 2 and 2 of 2 attempts right: variance (.5^2) / 3 = 1/12.

    The value 1/2 of two attempts has the variance .25 / 1, the value 1 none. Its two copies are told from another
    step in 2 * 1 of the 3 * 2 ordered pairs of samples: the noise in the variance is .25 / 3 = 1/12, too.
    """
    paths = ([1, 7], [2, 7], [1, 7])  # the same end: no variance after step 1
    own = completions(paths, ([0.5, 0.5, 1], [0.5, 1, 1], [0.5, 0.5, 1]), 2)
    (found,) = rank_provers(own, {"itself": (own, [1])})
    # the root has three visits and the term 1/12 - 1/12, the state after 1 two and the term 0
    assert found.quality.distinguishability.mean == pytest.approx(0)
    assert found.quality.alignment.mean == pytest.approx(0)
    other = completions(paths, ([0, 0.5, 1], [0, 0, 1], [0, 0.5, 1]), 2)
    (found,) = rank_provers(own, {"other": (other, [1])})
    # steps 1 (.5), 2 (0), 1 (.5): variance 1/12, less the same noise of step 1; covariance with .5, 1, .5: -1/12
    assert found.quality.distinguishability.mean == pytest.approx(0)
    assert found.quality.alignment.mean == pytest.approx(3 / 5 * -1 / 12), "attempts of its own: nothing to subtract"


def chances(n: int, value: float) -> list[tuple[float, float]]:
    """Every share of n attempts, and how likely it is."""
    return [(c / n, math.comb(n, c) * value**c * (1 - value) ** (n - c)) for c in range(n + 1)]


@pytest.mark.parametrize(("n", "j", "k"), [(2, 1, 1), (4, 1, 1), (4, 2, 2), (5, 1, 3), (6, 3, 3)])
def test_the_covariance_of_estimates_is_unbiased(n: int, j: int, k: int) -> None:
    for value in (0.0, 0.2, 0.7, 1.0):
        first, second, both, estimated = 0.0, 0.0, 0.0, 0.0
        for share, chance in chances(n, value):
            (a,), (b,) = best_of_k_estimate([share], [n], j), best_of_k_estimate([share], [n], k)
            first, second, both = first + chance * a, second + chance * b, both + chance * a * b
            estimated += chance * best_of_k_covariance(share, n, j, k)
        assert estimated == pytest.approx(both - first * second, abs=1e-12)
    assert best_of_k_covariance(0.25, 4, 1, 1) == pytest.approx(0.25 * 0.75 / 3)
    assert best_of_k_covariance(0.3, 0, 4, 4) == 0
    with pytest.raises(ValueError, match=r"at least j \+ k attempts, got 0\.5 of 2"):
        best_of_k_covariance(0.5, 2, 2, 1)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_over_all_outcomes_of_the_attempts_both_terms_are_the_true_ones(shared: bool, k: int) -> None:
    """Three samples of two steps: the mean over everything that the attempts behind their values could have shown."""
    samples, own_values = [1, 1, 2], {1: 0.3, 2: 0.8}
    their_values = own_values if shared else {1: 0.6, 2: 0.1}
    means = [0.0, 0.0]
    for own, p in labelled(samples, own_values, 4):
        for theirs, q in [(own, 1.0)] if shared else labelled(samples, their_values, 5):
            means = [m + p * q * term for m, term in zip(means, of_the_root(own, theirs, k), strict=True)]
    assert means == pytest.approx(naive(samples, own_values, {s: best_of_k(v, k) for s, v in their_values.items()}))


def labelled(samples: list[int], values: dict[int, float], n: int) -> list[tuple[list[Trajectory], float]]:
    """All labels that n attempts after each of two steps can give the samples, and how likely they are."""
    return [
        ([completion([step, i], [0.0, {1: a, 2: b}[step], 0.0], n) for i, step in enumerate(samples)], p * q)
        for (a, p), (b, q) in itertools.product(chances(n, values[1]), chances(n, values[2]))
    ]


def of_the_root(own: list[Trajectory], theirs: list[Trajectory], k: int) -> tuple[float, float]:
    """Both terms of the root alone: the values after the last steps are alike, and their states' terms 0."""
    (found,) = rank_provers(own, {"it": (theirs, [k])})
    scale = found.n_steps / len(own)
    return scale * found.quality.distinguishability.mean, scale * found.quality.alignment.mean


def naive(samples: list[int], own: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Sample variance and covariance, pair by pair."""
    pairs = list(itertools.combinations(samples, 2))
    return [
        sum((theirs[a] - theirs[b]) ** 2 for a, b in pairs) / (2 * len(pairs)),
        sum((theirs[a] - theirs[b]) * (own[a] - own[b]) for a, b in pairs) / (2 * len(pairs)),
    ]


def test_intervals_are_over_problems() -> None:
    """Two problems, one where a prover tells steps apart and one where it does not: the interval reaches both."""
    found = [completion([i], [0.5, float(i)], problem="a") for i in (0, 1)]
    found += [completion([i], [0.5, 1.0], problem="b") for i in (0, 1)]
    (ranked,) = rank_provers(found, {"itself": (found, [1])})
    assert ranked.quality.distinguishability == (0.25, 0.0, 0.5, 2)
    blind = [completion(list(t.completion), [0.5, 0.5], problem=t.problem.id) for t in found]
    first, last = rank_provers(found, {"blind": (blind, [1]), "itself": (found, [1])})
    assert (first.name, first.behind, last.behind) == ("itself", (0.0, 0.0, 0.0, 2), (0.5, 0.0, 1.0, 2))


def test_steps_that_were_given_are_no_samples() -> None:
    own = completions(PATHS, ([0.4, 0.5, 1], [0.4, 0.5, 0], [0.4, 0.2, 0]))
    for t in own:
        t.n_given = 1
    (found,) = rank_provers(own, {"itself": (own, [1])})
    assert (found.n_states, found.n_steps) == (1, 2), "the root's steps were given"
    assert found.quality.distinguishability.mean == pytest.approx(0.5)


def test_what_cannot_be_ranked_is_refused() -> None:
    own = completions(PATHS, ([0.5, 0.5, 1], [0.5, 0.5, 0], [0.5, 1.0, 0]), 2)
    with pytest.raises(DataError, match="the values of other are of other completions"):
        rank_provers(own, {"other": ([completion([5, 6], [0, 0, 1])], [1])})
    with pytest.raises(DataError, match="no two completions take different steps"):
        rank_provers(own[:1], {})
    with pytest.raises(DataError, match=r"it has values of n = 2: the noise of the best of 2 is known from n = 4"):
        rank_provers(own, {"it": (own, [1, 2])})
    uncounted = completions(PATHS, ([0.5, 0.5, 1], [0.5, 0.5, 0], [0.5, 1.0, 0]), 2)
    uncounted[1].value_counts = ()
    with pytest.raises(DataError, match="x does not say how many attempts its values are shares of"):
        rank_provers(own, {"x": (uncounted, [1])})
    stopped = completions(PATHS, ([0.5, 0.5, 1], [0.5, 0.5, 0], [0.5, 1.0, 0]), 2)
    stopped[2].value_counts = [4, 2, 0]
    with pytest.raises(DataError, match="x has values of 2 to 4 attempts: they were stopped by how they ended"):
        rank_provers(own, {"x": (stopped, [1])})
    bare = completions(PATHS, ([0.5, 0.5, 1], [0.5, 0.5, 0], [0.5, 1.0, 0]), 2)
    bare[0].values = ()
    with pytest.raises(DataError, match="x has 0 values for 3 prefixes"):
        rank_provers(own, {"x": (bare, [1])})
