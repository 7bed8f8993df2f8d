"""Provers' distinguishability and alignment: by hand, against the definition, and from stored completions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.errors import DataError
from surefoot.reasoning.credit import prover_quality, rank_provers
from surefoot.reasoning.problems import Problem
from surefoot.reasoning.sequences import Span
from surefoot.reasoning.trajectories import Trajectory


def test_by_hand() -> None:
    """Probabilities .25 and .75: prover 1 and 0, mean .25, variance .1875; policy .8 and .4, covariance .075."""
    found = prover_quality([[0.8, 0.4]], [[1.0, 0.0]], [[0.25, 0.75]])
    assert found.distinguishability.mean == pytest.approx(0.1875)
    assert found.alignment.mean == pytest.approx(0.075)
    assert found.improvement.mean == pytest.approx(0.2625)
    # two samples: variance of 1 and 0 is .5, covariance with .8 and .4 is .2
    sampled = prover_quality([[0.8, 0.4]], [[1.0, 0.0]])
    assert (sampled.distinguishability.mean, sampled.alignment.mean) == pytest.approx((0.5, 0.2))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1)), min_size=2, max_size=6))
def test_it_is_the_theorem_s_terms(steps: list[tuple[float, float, float]]) -> None:
    """With the values of the state itself the means of A^mu * A^mu less its mean's square, and of A^mu * A^pi."""
    q, mu, weights = torch.tensor(steps, dtype=torch.float64).unbind(1)
    p = weights / weights.sum()
    advantage, own = mu - 0.3, q - (p * q).sum()  # .3: any value of the state under the prover
    found = prover_quality([q.tolist()], [mu.tolist()], [p.tolist()])
    variance = (p * advantage.square()).sum() - (p * advantage).sum().square()
    assert found.distinguishability.mean == pytest.approx(float(variance), abs=1e-9)
    assert found.alignment.mean == pytest.approx(float((p * advantage * own).sum()), abs=1e-9)


def completion(tokens: list[int], values: list[float]) -> Trajectory:
    made = Trajectory(Problem("p", "1+1=", "2"), 0, [9, 9], tokens, [-1.0] * len(tokens), "stop", 0)
    made.spans = [Span(i, i + 1) for i in range(len(tokens))]
    made.values = values
    return made


def test_provers_are_ranked_from_stored_completions() -> None:
    """At the root steps 1 (.5), 1 and 2 (.2), variance .03; after 1 the steps 3 (1) and 4 (0), variance .5.

    The root is visited three times, the other state twice. A prover that sees nothing is last.
    """
    paths = ([1, 3], [1, 4], [2, 3])
    own = [completion(p, v) for p, v in zip(paths, ([0.4, 0.5, 1], [0.4, 0.5, 0], [0.4, 0.2, 0]), strict=True)]
    blind = [completion(p, [0.3, 0.3, 0.3]) for p in paths]
    against = [completion(p, v) for p, v in zip(paths, ([0.4, 0.2, 0], [0.4, 0.2, 1], [0.4, 0.5, 1]), strict=True)]
    found = rank_provers(own, {"blind": (blind, 1), "against": (against, 1), "best of 2": (own, 2), "itself": (own, 1)})
    assert next(iter(found)) == "best of 2"
    assert found["blind"].improvement.mean == 0
    assert found["itself"].distinguishability.mean == pytest.approx((3 * 0.03 + 2 * 0.5) / 5)
    assert found["itself"].alignment.mean == pytest.approx((3 * 0.03 + 2 * 0.5) / 5)
    assert found["against"].alignment.mean == pytest.approx(-(3 * 0.03 + 2 * 0.5) / 5)
    rare = [completion([1], [0.5, 0.5])] * 99 + [completion([2], [0.5, 1.0])]
    (seen,) = rank_provers(rare, {"itself": (rare, 1)}).values()
    assert seen.distinguishability.mean == pytest.approx(0.0025), "one step in a hundred, not one of two"
    with pytest.raises(DataError, match="the values of other are of other completions"):
        rank_provers(own, {"other": ([completion([5, 6], [0, 0, 1])], 1)})
    with pytest.raises(DataError, match="no two completions take different steps"):
        rank_provers(own[:1], {})
    with pytest.raises(DataError, match="state 0 has 1 and 1 values"):
        prover_quality([[0.5]], [[0.5]])
    with pytest.raises(DataError, match="0 states of the policy"):
        prover_quality([], [])
